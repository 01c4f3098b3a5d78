/* Products with weights of eight bits: a whole number each from -127 to 127, and a scale for every
 * output. A row's sums never depend on how many rows are beside it, bit for bit: there is one copy
 * of each function that the compiler might add up in another order (noinline).
 *
 * The same in torch: quantised.py.
 */

#include <math.h>
#include <string.h>

#include "team.h"
#include "tile.h"

enum {
    DEPTH = 256,  /* of a sum before it is added up: short sums round less, and stay in cache */
    HEIGHT = 96,  /* rows whose inputs stay in the second-level cache */
    QUAD = 4,     /* numbers of eight bits that are multiplied and added up at once */
};

/* Rounded numbers of x are kept so far above what they are: where the processor multiplies bytes
 * without a sign by such with one. */
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
enum { ZERO = 128 };
#else
enum { ZERO = 0 };
#endif

/* One panel with weights of eight bits and x as it is. */
static __attribute__((noinline)) void panel_int8(
    const float *x, int64_t xs, const Weights *w, int at, float *y, int64_t ys, int rows,
    Ahead *ahead) {
    const int k = w->inputs, columns = w->outputs - at < PANEL ? w->outputs - at : PANEL;
    const int8_t *b = (const int8_t *)w->packed + (int64_t)at * k;
    float own[HEIGHT * PANEL];
    for (int d = 0; d < k; d += DEPTH)
        tiles_of(x + d, xs, b + (int64_t)d * PANEL, PANEL, own, PANEL,
                 k - d < DEPTH ? k - d : DEPTH, rows, d > 0, ahead, 1);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            y[i * ys + j] = own[i * PANEL + j] * w->scales[at + j] +
                            (w->bias ? w->bias[at + j] : 0.0f);
}

/* The largest magnitude; a NaN is larger than all. */
static inline float largest(const float *x, int k) {
    uint32_t most = 0, bits;
    for (int i = 0; i < k; i++) {
        memcpy(&bits, x + i, sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    float found;
    memcpy(&found, &most, sizeof found);
    return found;
}

/* Each row by a scale of its own: its largest number becomes 127. */
static void round_rows(const float *x, int64_t xs, int m, int k, const Rounded *to) {
    const int64_t stride = (k + QUAD - 1) / QUAD * QUAD;
#pragma omp for
    for (int row = 0; row < m; row++) {
        const float *from = x + row * xs, most = largest(from, k);
        const float factor = most > 1e-30f ? 127.0f / most : 0.0f;
        uint8_t *numbers = to->numbers + row * stride;
        for (int i = 0; i < k; i++) numbers[i] = (int)rintf(from[i] * factor) + ZERO;
        for (int i = k; i < stride; i++) numbers[i] = ZERO;
        to->scales[row] = most / 127.0f;
    }
}

/* c + four numbers of x times four of each of eight columns. Exact: AVX2's pairs are sums of 16
 * bits, at most 2 * 127 * 127; VNNI's have 32. */
static inline i8 quads(i8 c, const uint8_t *x, const int8_t *b) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    const i8 repeated = {four, four, four, four, four, four, four, four};
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (i8)_mm256_dpbusd_epi32((__m256i)c, (__m256i)repeated, *(const __m256i_u *)b);
#elif defined(__AVXVNNI__)
    return (i8)_mm256_dpbusd_avx_epi32((__m256i)c, (__m256i)repeated, *(const __m256i_u *)b);
#elif defined(__AVX2__)
    const __m256i a = (__m256i)repeated, signs = _mm256_sign_epi8(*(const __m256i_u *)b, a);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), signs);
    return c + (i8)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    (void)repeated;
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < QUAD; i++) c[j] += (int8_t)x[i] * b[QUAD * j + i];
    return c;
#endif
}

/* sums[rows, PANEL] of whole numbers. */
static inline __attribute__((always_inline)) void tile_dynamic(
    const uint8_t *x, int64_t xs, const int8_t *b, int32_t *sums, int k, const int rows,
    const float *next) {
    i8 c[ROWS][2];
    for (int i = 0; i < rows; i++) c[i][0] = c[i][1] = (i8){0};
    for (int at = 0; at < k; at += QUAD, b += QUAD * PANEL) {
        __builtin_prefetch(b + AHEAD * LINE * 4);
        for (int line = at; next && line < at + QUAD; line++)
            __builtin_prefetch(next + line * LINE, 0, 2);
        for (int i = 0; i < rows; i++) {
            c[i][0] = quads(c[i][0], x + i * xs + at, b);
            c[i][1] = quads(c[i][1], x + i * xs + at, b + QUAD * PANEL / 2);
        }
    }
    memcpy(sums, c, sizeof c[0] * rows);
}

/* One panel with weights and x of eight bits. */
static __attribute__((noinline)) void panel_dynamic(
    const Rounded *rounded, const Weights *w, int at, float *y, int64_t ys, int row, int rows,
    Ahead *ahead) {
    const int columns = w->outputs - at < PANEL ? w->outputs - at : PANEL;
    const int64_t k = w->inputs, xs = (k + QUAD - 1) / QUAD * QUAD;
    const uint8_t *x = rounded->numbers + row * xs;
    const int8_t *b = (const int8_t *)w->packed + at * xs;
    const float *scales = rounded->scales + row;
    int32_t sums[ROWS * PANEL];
    for (int left = (rows + ROWS - 1) / ROWS; left > 0; left--) {
        const int now = (rows + left - 1) / left;
        const float *next = advance(ahead, k, 0);
        switch (now) {
            case 6: tile_dynamic(x, xs, b, sums, k, 6, next); break;
            case 5: tile_dynamic(x, xs, b, sums, k, 5, next); break;
            case 4: tile_dynamic(x, xs, b, sums, k, 4, next); break;
            case 3: tile_dynamic(x, xs, b, sums, k, 3, next); break;
            case 2: tile_dynamic(x, xs, b, sums, k, 2, next); break;
            default: tile_dynamic(x, xs, b, sums, k, 1, next); break;
        }
        for (int i = 0; i < now; i++)
            for (int j = 0; j < columns; j++)
                y[i * ys + j] = (sums[i * PANEL + j] - ZERO * w->sums[at + j]) *
                                    (scales[i] * w->scales[at + j]) +
                                (w->bias ? w->bias[at + j] : 0.0f);
        rows -= now;
        x += now * xs;
        y += now * ys;
        scales += now;
    }
}
