/* Products with few rows, and what many small adapters add to them. fp32; threads are OpenMP's,
 * shared with torch.
 *
 * References of the same meaning: ../reference.py. Called through linear.py, and by layers.c.
 */

#include <omp.h>

#include "deltas.h"
#include "quantised.h"

/* w: [n, k]; packed: panels of 16 columns, [ceil(n / 16), k, 16], the last filled up with zeros. */
void lorikeet_pack(const float *w, float *packed, int n, int k) {
    for (int j = 0; j < (n + PANEL - 1) / PANEL * PANEL; j++)
        for (int i = 0; i < k; i++)
            packed[((int64_t)(j / PANEL) * k + i) * PANEL + j % PANEL] =
                j < n ? w[(int64_t)j * k + i] : 0.0f;
}

/* One panel of y[rows, n] = x[rows, k] w^T + bias, in float32. */
static void panel_float32(const float *x, int64_t xs, const Weights *w, int at, float *y,
                          int64_t ys, int rows, Ahead *ahead) {
    const int k = w->inputs, columns = w->outputs - at < PANEL ? w->outputs - at : PANEL;
    const float *b = (const float *)w->packed + (int64_t)at * k;
    const int here = columns == PANEL && !w->bias;
    float own[HEIGHT * PANEL], *to = here ? y : own;
    for (int d = 0; d < k; d += DEPTH)
        tiles(x + d, xs, b + (int64_t)d * PANEL, PANEL, to, here ? ys : PANEL,
              k - d < DEPTH ? k - d : DEPTH, rows, d > 0, ahead);
    for (int i = 0; !here && i < rows; i++)
        for (int j = 0; j < columns; j++)
            y[i * ys + j] = own[i * PANEL + j] + (w->bias ? w->bias[at + j] : 0.0f);
}

/* That from column `at` on, for `rows` rows of x and y from `row` on. */
static void panel_of(const float *x, int64_t xs, const Weights *w, const Rounded *rounded, int at,
                     float *y, int64_t ys, int row, int rows, Ahead *ahead) {
    x += row * xs;
    y += row * ys + at;
    switch (w->kind) {
        case INT8: panel_int8(x, xs, w, at, y, ys, rows, ahead); break;
        case INT8_DYNAMIC: panel_dynamic(rounded, w, at, y, ys, row, rows, ahead); break;
        default: panel_float32(x, xs, w, at, y, ys, rows, ahead); break;
    }
}

/* With many adapters on few rows. Adapters are all memory then: each thread has chunks of its own,
 * fetches them beneath its panels, and multiplies with an A as soon as that is there. */
static void few_rows(const float *x, int64_t xs, const Weights *w, const Rounded *rounded, float *y,
                     int64_t ys, int m, const Deltas *deltas) {
    const int n = w->outputs, site = w->site;
    const int panels = (n + PANEL - 1) / PANEL, threads = omp_get_num_threads();
    Share share;
    share_of(deltas, site, omp_get_thread_num(), threads, &share);
    int turns = 0, next = share.first;
    int64_t fetched = 0, needed = share.lines[0];
#pragma omp for schedule(dynamic, 4) nowait
    for (int p = 0; p < panels; p++) {
        const int done = ++turns * threads;
        const int64_t upto = done < panels ? share.sum * done / panels : share.sum;
        Ahead ahead = {share.regions, share.lines, fetched, upto - fetched};
        fetched = upto;
        panel_of(x, xs, w, rounded, p * PANEL, y, ys, 0, m, &ahead);
        for (; next < share.end && needed <= fetched; next++) {
            shrink_own(x, xs, deltas, site, 0, next, next + 1);
            needed += share.lines[next + 1 - share.first];
        }
    }
    shrink_own(x, xs, deltas, site, 0, next, share.end);
#pragma omp barrier
    for (int p = 0; p < deltas->most_pieces; p++) {
        if (p > 0) shrink_own(x, xs, deltas, site, p, share.first, share.end);
        expand_own(y, ys, deltas, site, p, share.first, share.end, n);
    }
#pragma omp barrier
}

void linear_team(const float *x, int64_t xs, const Weights *w, const Rounded *rounded, float *y,
                 int64_t ys, int m, const Deltas *deltas) {
    const int n = w->outputs, site = w->site;
    const int panels = (n + PANEL - 1) / PANEL, heights = (m + HEIGHT - 1) / HEIGHT;
    if (w->kind == INT8_DYNAMIC) round_rows(x, xs, m, w->inputs, rounded);
    if (deltas && heights == 1 && deltas->count <= MOST_AHEAD &&
        deltas->count >= 2 * omp_get_num_threads()) {
        few_rows(x, xs, w, rounded, y, ys, m, deltas);
        return;
    }
    /* Of many rows y does not stay in the cache: what adapters add goes to it while it is there. */
    const int at_once = deltas && heights > 1 && deltas->most_pieces == 1;
    if (at_once) shrink_all(x, xs, deltas, site, 0);
    /* One tile of rows: memory sets the pace, so each thread reads as much in a stretch as it can.
     * Of more the threads share x and w in the caches, and neither waits long for the other if
     * that is interrupted. */
    const int narrow = m <= ROWS;
#pragma omp for schedule(guided) nowait
    for (int p = 0; p < (narrow ? panels : 0); p++)
        panel_of(x, xs, w, rounded, p * PANEL, y, ys, 0, m, 0);
#pragma omp for collapse(2) schedule(dynamic, 4)
    for (int block = 0; block < (narrow ? 0 : heights); block++) {
        for (int p = 0; p < panels; p++) {
            const int row = block * HEIGHT, at = p * PANEL;
            const int rows = m - row < HEIGHT ? m - row : HEIGHT;
            const int columns = n - at < PANEL ? n - at : PANEL;
            if (at_once) expand_here(0, ys, deltas, site, row, rows, at, columns);
            panel_of(x, xs, w, rounded, at, y, ys, row, rows, 0);
            if (at_once) expand_here(y, ys, deltas, site, row, rows, at, columns);
        }
    }
    for (int p = 0; deltas && !at_once && p < deltas->most_pieces; p++) {
        shrink_all(x, xs, deltas, site, p);
        expand_all(y, ys, deltas, site, p, n);
    }
}

/* See linear_team. */
void lorikeet_linear(const float *x, int64_t xs, const Weights *weights, const Rounded *rounded,
                     float *y, int64_t ys, int m, const Deltas *deltas) {
#pragma omp parallel
    linear_team(x, xs, weights, rounded, y, ys, m, deltas);
}
