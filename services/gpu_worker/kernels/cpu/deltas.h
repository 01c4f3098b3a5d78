/* What adapters add to a product, and where in memory that lies. */

#include "tile.h"

enum { MOST_SLICES = 3 };
enum { BLOCK = 48, RANKS = 12, COLUMNS = 512 }; /* of one task */

/* A part of what an adapter adds to a fused linear: `rank` rows of A, and for each of up to three
 * outputs (q, k, v; gate, up) which of these rows it uses, its columns, and its B, [rows, width]. */
typedef struct {
    const float *down;
    int32_t inputs, rank, slices, unused;
    struct {
        const float *up;
        int32_t rank_start, rank_end, column_start, column_end;
    } slice[MOST_SLICES];
} Piece;

/* An adapter's pieces for one fused linear. */
typedef struct {
    const Piece *pieces;
    int64_t count;
} Site;

/* Neighbouring rows of one adapter, and its sites by number (layer * 4 + fused linear). */
typedef struct {
    int32_t first, count;
    const Site *sites;
} Chunk;

/* to[0..n) += the sum of factor[r] * b[r], four rows of b at a time. */
static inline void add_rows(float *to, const float *factor, const float *b, int64_t stride,
                            int rows, int n) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float f0 = factor[r], f1 = factor[r + 1], f2 = factor[r + 2], f3 = factor[r + 3];
        const float *b0 = b + r * stride, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
        for (int i = 0; i < n; i++) to[i] += f0 * b0[i] + f1 * b1[i] + f2 * b2[i] + f3 * b3[i];
    }
    for (; r < rows; r++)
        for (int i = 0; i < n; i++) to[i] += factor[r] * b[r * stride + i];
}

/* h[i, j] = x[i] . a[j] for so many rows of x, at most three, and four of a. */
static inline __attribute__((always_inline)) void dots(
    const float *x, int64_t xs, const float *a, int n, float *h, int64_t hs, const int rows) {
    v8 c[3][4], part[3];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < 4; j++) c[i][j] = all(0.0f);
    int k = 0;
    for (; k + 8 <= n; k += 8) {
        for (int i = 0; i < rows; i++) part[i] = *(const v8 *)(x + i * xs + k);
        for (int j = 0; j < 4; j++) {
            const v8 av = *(const v8 *)(a + (int64_t)j * n + k);
            for (int i = 0; i < rows; i++) c[i][j] += av * part[i];
        }
    }
    for (int i = 0; i < rows; i++) {
        v4 four = sums(c[i][0], c[i][1], c[i][2], c[i][3]);
        for (int l = k; l < n; l++)
            four += x[i * xs + l] * (v4){a[l], a[n + l], a[2 * n + l], a[3 * n + l]};
        *(v4 *)(h + i * hs) = four;
    }
}

static void shrink(const float *x, int64_t xs, const float *a, int n, float *h, int64_t hs,
                   int rows, int ranks) {
    int j = 0;
    for (; j + 4 <= ranks; j += 4)
        for (int i = 0; i < rows; i += 3) {
            const float *xi = x + i * xs, *aj = a + (int64_t)j * n;
            float *hij = h + i * hs + j;
            switch (rows - i) {
                case 1: dots(xi, xs, aj, n, hij, hs, 1); break;
                case 2: dots(xi, xs, aj, n, hij, hs, 2); break;
                default: dots(xi, xs, aj, n, hij, hs, 3); break;
            }
        }
    for (; j < ranks; j++)
        for (int i = 0; i < rows; i++) {
            float sum = 0.0f;
            for (int l = 0; l < n; l++) sum += x[i * xs + l] * a[(int64_t)j * n + l];
            h[i * hs + j] = sum;
        }
}

/* y[rows, width] += h[rows, ranks] b[ranks, width]; a row of b is `bs` after the last. */
static void expand(const float *h, int64_t hs, const float *b, int64_t bs, float *y, int64_t ys,
                   int rows, int ranks, int width) {
    int done = 0;
    if (rows >= ROWS)
        for (; done + PANEL <= width; done += PANEL)
            tiles(h, hs, b + done, bs, y + done, ys, ranks, rows, 1, 0);
    for (int i = 0; done < width && i < rows; i++)
        add_rows(y + i * ys + done, h + i * hs, b + done, bs, ranks, width - done);
}

/* What the adapters of a step add: chunks, and room for their hidden values, [rows, most_rank]. */
typedef struct {
    const Chunk *chunks;
    float *h;
    int32_t count, most_rows, most_rank, most_pieces;
} Deltas;

/* h = x A^T of the p-th piece of every chunk. */
static void shrink_all(const float *x, int64_t xs, const Deltas *deltas, int site, int p) {
    const int row_blocks = (deltas->most_rows + BLOCK - 1) / BLOCK;
    const int rank_blocks = (deltas->most_rank + RANKS - 1) / RANKS;
    const int64_t hs = deltas->most_rank;
#pragma omp for collapse(3) schedule(dynamic, 4)
    for (int c = 0; c < deltas->count; c++) {
        for (int rows = 0; rows < row_blocks; rows++) {
            for (int ranks = 0; ranks < rank_blocks; ranks++) {
                const Chunk *chunk = deltas->chunks + c;
                if (p >= chunk->sites[site].count || rows * BLOCK >= chunk->count) continue;
                const Piece *piece = chunk->sites[site].pieces + p;
                const int r = ranks * RANKS, left = chunk->count - rows * BLOCK;
                if (r >= piece->rank) continue;
                const int64_t first = chunk->first + rows * BLOCK;
                shrink(x + first * xs, xs, piece->down + (int64_t)r * piece->inputs,
                       piece->inputs, deltas->h + first * hs + r, hs, left < BLOCK ? left : BLOCK,
                       piece->rank - r < RANKS ? piece->rank - r : RANKS);
            }
        }
    }
}

/* y += h B of the p-th piece of every chunk. */
static void expand_all(float *y, int64_t ys, const Deltas *deltas, int site, int p, int columns) {
    const int row_blocks = (deltas->most_rows + BLOCK - 1) / BLOCK;
    const int column_blocks = (columns + COLUMNS - 1) / COLUMNS;
    const int64_t hs = deltas->most_rank;
#pragma omp for collapse(3) schedule(dynamic, 4)
    for (int c = 0; c < deltas->count; c++) {
        for (int rows = 0; rows < row_blocks; rows++) {
            for (int block = 0; block < MOST_SLICES * column_blocks; block++) {
                const Chunk *chunk = deltas->chunks + c;
                if (p >= chunk->sites[site].count || rows * BLOCK >= chunk->count) continue;
                const Piece *piece = chunk->sites[site].pieces + p;
                const int s = block / column_blocks, from = block % column_blocks * COLUMNS;
                if (s >= piece->slices) continue;
                const int start = piece->slice[s].column_start;
                const int width = piece->slice[s].column_end - start;
                if (from >= width) continue;
                const int64_t first = chunk->first + rows * BLOCK;
                const int left = chunk->count - rows * BLOCK;
                expand(deltas->h + first * hs + piece->slice[s].rank_start, hs,
                       piece->slice[s].up + from, width, y + first * ys + start + from, ys,
                       left < BLOCK ? left : BLOCK,
                       piece->slice[s].rank_end - piece->slice[s].rank_start,
                       width - from < COLUMNS ? width - from : COLUMNS);
            }
        }
    }
}

/* The same for some rows and columns while they are in the cache, if there is one piece; without
 * y, B's part of it is only fetched. */
static void expand_here(float *y, int64_t ys, const Deltas *deltas, int site, int first, int rows,
                        int column, int columns) {
    const int64_t hs = deltas->most_rank;
    for (int c = 0; c < deltas->count; c++) {
        const Chunk *chunk = deltas->chunks + c;
        const int end = chunk->first + chunk->count;
        const int from = chunk->first > first ? chunk->first : first;
        const int to = end < first + rows ? end : first + rows;
        if (from >= to || chunk->sites[site].count == 0) continue;
        const Piece *piece = chunk->sites[site].pieces;
        for (int s = 0; s < piece->slices; s++) {
            const int start = piece->slice[s].column_start, stop = piece->slice[s].column_end;
            const int left = start > column ? start : column;
            const int right = stop < column + columns ? stop : column + columns;
            if (left >= right) continue;
            const float *b = piece->slice[s].up + (left - start);
            const int ranks = piece->slice[s].rank_end - piece->slice[s].rank_start;
            for (int r = 0; !y && r < ranks; r++) __builtin_prefetch(b + r * (stop - start));
            if (y)
                expand(deltas->h + from * hs + piece->slice[s].rank_start, hs, b, stop - start,
                       y + from * ys + left, ys, to - from, ranks, right - left);
        }
    }
}

/* The first pieces of every chunk at a site, as regions of memory. Returns their lines in all. */
static int64_t regions_of(const Deltas *deltas, int site, const float **regions, int64_t *lines) {
    int64_t sum = 0;
    for (int c = 0; c < deltas->count; c++) {
        const Site *at = deltas->chunks[c].sites + site;
        const Piece *piece = at->pieces;
        int64_t size = 0;
        if (at->count > 0) { /* B lies behind A: see packing.py */
            size = (int64_t)piece->rank * piece->inputs;
            for (int s = 0; s < piece->slices; s++)
                size += (int64_t)(piece->slice[s].rank_end - piece->slice[s].rank_start) *
                    (piece->slice[s].column_end - piece->slice[s].column_start);
        }
        regions[c] = at->count > 0 ? piece->down : 0;
        lines[c] = (size + LINE - 1) / LINE;
        sum += lines[c];
    }
    return sum;
}
