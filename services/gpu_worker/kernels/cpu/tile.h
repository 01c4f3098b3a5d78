/* The smallest product: a few rows by sixteen columns, in registers. */

#ifndef TILE
#define TILE

#include <stdint.h>

#include "vector.h"

enum {
    PANEL = 16,  /* columns of a tile: two vectors */
    ROWS = 6,    /* rows of a tile: with two vectors each, twelve accumulators */
    AHEAD = 64,  /* rows of a panel that are fetched early */
    LINE = 16,   /* numbers in a line of the cache */
};

/* y[rows, PANEL] = x[rows, depth] b[depth, PANEL], or += ; a row of b is `bs` after the last. b is
 * of floats, or, if `eight`, of int8: in registers they become the same floats, exactly. */
static inline __attribute__((always_inline)) void tile(
    const float *x, int64_t xs, const void *b, int64_t bs, float *y, int64_t ys, int depth,
    const int rows, int add, const float *next, const int eight) {
    const float *of32 = b;
    const int8_t *of8 = b;
    v8 c[ROWS][2];
    for (int i = 0; i < rows; i++) c[i][0] = c[i][1] = all(0.0f);
#pragma GCC unroll 4
    for (int k = 0; k < depth; k++) {
        if (bs == PANEL) {
            __builtin_prefetch(eight ? of8 + k * PANEL + AHEAD * LINE * 4
                                     : (const void *)(of32 + (k + AHEAD) * PANEL));
            __builtin_prefetch(next + k * LINE, 0, 2);
        }
        const v8 b0 = eight ? widened(of8 + k * bs) : *(const v8 *)(of32 + k * bs);
        const v8 b1 = eight ? widened(of8 + k * bs + 8) : *(const v8 *)(of32 + k * bs + 8);
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
static inline __attribute__((always_inline)) void tiles_of(
    const float *x, int64_t xs, const void *b, int64_t bs, float *y, int64_t ys, int depth,
    int rows, int add, Ahead *ahead, const int eight) {
    for (int left = (rows + ROWS - 1) / ROWS; left > 0; left--) {
        const int now = (rows + left - 1) / left;
        const float *next = advance(ahead, depth, b);
        switch (now) {
            case 6: tile(x, xs, b, bs, y, ys, depth, 6, add, next, eight); break;
            case 5: tile(x, xs, b, bs, y, ys, depth, 5, add, next, eight); break;
            case 4: tile(x, xs, b, bs, y, ys, depth, 4, add, next, eight); break;
            case 3: tile(x, xs, b, bs, y, ys, depth, 3, add, next, eight); break;
            case 2: tile(x, xs, b, bs, y, ys, depth, 2, add, next, eight); break;
            default: tile(x, xs, b, bs, y, ys, depth, 1, add, next, eight); break;
        }
        rows -= now;
        x += now * xs;
        y += now * ys;
    }
}

static void tiles(const float *x, int64_t xs, const float *b, int64_t bs, float *y, int64_t ys,
                  int depth, int rows, int add, Ahead *ahead) {
    tiles_of(x, xs, b, bs, y, ys, depth, rows, add, ahead, 0);
}

#endif
