/* The smallest product: a few rows by sixteen columns, in registers. */

#include <stdint.h>

#include "vector.h"

enum {
    PANEL = 16,  /* columns of a tile: two vectors */
    ROWS = 6,    /* rows of a tile: with two vectors each, twelve accumulators */
    AHEAD = 64,  /* rows of a panel that are fetched early */
    LINE = 16,   /* numbers in a line of the cache */
};

/* y[rows, PANEL] = x[rows, depth] b[depth, PANEL], or += ; a row of b is `bs` after the last. */
static inline __attribute__((always_inline)) void tile(
    const float *x, int64_t xs, const float *b, int64_t bs, float *y, int64_t ys, int depth,
    const int rows, int add, const float *next) {
    v8 c[ROWS][2];
    for (int i = 0; i < rows; i++) c[i][0] = c[i][1] = all(0.0f);
#pragma GCC unroll 4
    for (int k = 0; k < depth; k++) {
        if (bs == PANEL) {
            __builtin_prefetch(b + (k + AHEAD) * PANEL);
            __builtin_prefetch(next + k * LINE, 0, 2);
        }
        const v8 b0 = *(const v8 *)(b + k * bs), b1 = *(const v8 *)(b + k * bs + 8);
        for (int i = 0; i < rows; i++) {
            const v8 a = all(x[i * xs + k]);
            c[i][0] += a * b0;
            c[i][1] += a * b1;
        }
    }
    for (int i = 0; i < rows; i++) {
        v8 *to = (v8 *)(y + i * ys);
        to[0] = add ? to[0] + c[i][0] : c[i][0];
        to[1] = add ? to[1] + c[i][1] : c[i][1];
    }
}

/* Memory that is wanted soon: so many lines, region after region. Few-row products leave the
 * memory idle; what adapters add is all memory, so it is fetched beneath the product. */
typedef struct {
    const float *const *regions;
    const int64_t *lines;
    int64_t at, left; /* in the first region; in all */
} Ahead;

/* Where the next `count` lines to fetch begin, or `otherwise`. */
static inline const float *advance(Ahead *ahead, int count, const float *otherwise) {
    if (!ahead || ahead->left <= 0) return otherwise;
    while (ahead->at >= *ahead->lines) {
        ahead->at -= *ahead->lines;
        ahead->lines++;
        ahead->regions++;
    }
    const float *from = *ahead->regions + ahead->at * LINE;
    const int64_t rest = *ahead->lines - ahead->at, many = count < rest ? count : rest;
    ahead->at += many;
    ahead->left -= many;
    return from;
}

/* The same for any number of rows, in tiles as even as can be: 32 are 6 6 5 5 5 5. */
static void tiles(const float *x, int64_t xs, const float *b, int64_t bs, float *y, int64_t ys,
                  int depth, int rows, int add, Ahead *ahead) {
    for (int left = (rows + ROWS - 1) / ROWS; left > 0; left--) {
        const int now = (rows + left - 1) / left;
        const float *next = advance(ahead, depth, b);
        switch (now) {
            case 6: tile(x, xs, b, bs, y, ys, depth, 6, add, next); break;
            case 5: tile(x, xs, b, bs, y, ys, depth, 5, add, next); break;
            case 4: tile(x, xs, b, bs, y, ys, depth, 4, add, next); break;
            case 3: tile(x, xs, b, bs, y, ys, depth, 3, add, next); break;
            case 2: tile(x, xs, b, bs, y, ys, depth, 2, add, next); break;
            default: tile(x, xs, b, bs, y, ys, depth, 1, add, next); break;
        }
        rows -= now;
        x += now * xs;
        y += now * ys;
    }
}
