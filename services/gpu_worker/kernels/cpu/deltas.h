/* What adapters add to a product, and where in memory that lies. */

#include "tile.h"

enum { MOST_SLICES = 3 };
enum { BLOCK = 48, RANKS = 12, COLUMNS = 512 }; /* of one task */
enum { MOST_AHEAD = 256 };                        /* chunks whose memory is fetched early */

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
typedef struct Deltas {
    const Chunk *chunks;
    float *h;
    int32_t count, most_rows, most_rank, most_pieces;
} Deltas;

/* h = x A^T of a chunk's p-th piece, for a block of its rows and one of its ranks. */
static void shrink_block(const float *x, int64_t xs, const Deltas *deltas, int site, int p, int c,
                         int row, int rank, int rows, int ranks) {
    const Chunk *chunk = deltas->chunks + c;
    if (p >= chunk->sites[site].count || row >= chunk->count) return;
    const Piece *piece = chunk->sites[site].pieces + p;
    if (rank >= piece->rank) return;
    const int64_t first = chunk->first + row, hs = deltas->most_rank;
    shrink(x + first * xs, xs, piece->down + (int64_t)rank * piece->inputs, piece->inputs,
           deltas->h + first * hs + rank, hs, chunk->count - row < rows ? chunk->count - row : rows,
           piece->rank - rank < ranks ? piece->rank - rank : ranks);
}

/* y += h B of a chunk's p-th piece, for a block of its rows and one of the columns of a slice. */
static void expand_block(float *y, int64_t ys, const Deltas *deltas, int site, int p, int c, int s,
                         int row, int column, int rows, int columns) {
    const Chunk *chunk = deltas->chunks + c;
    if (p >= chunk->sites[site].count || row >= chunk->count) return;
    const Piece *piece = chunk->sites[site].pieces + p;
    if (s >= piece->slices) return;
    const int start = piece->slice[s].column_start;
    const int width = piece->slice[s].column_end - start;
    if (column >= width) return;
    const int64_t first = chunk->first + row, hs = deltas->most_rank;
    expand(deltas->h + first * hs + piece->slice[s].rank_start, hs, piece->slice[s].up + column,
           width, y + first * ys + start + column, ys,
           chunk->count - row < rows ? chunk->count - row : rows,
           piece->slice[s].rank_end - piece->slice[s].rank_start,
           width - column < columns ? width - column : columns);
}

/* Of every chunk, shared among the threads block by block. */
static void shrink_all(const float *x, int64_t xs, const Deltas *deltas, int site, int p) {
#pragma omp for collapse(3) schedule(dynamic, 4)
    for (int c = 0; c < deltas->count; c++)
        for (int row = 0; row < deltas->most_rows; row += BLOCK)
            for (int rank = 0; rank < deltas->most_rank; rank += RANKS)
                shrink_block(x, xs, deltas, site, p, c, row, rank, BLOCK, RANKS);
}

static void expand_all(float *y, int64_t ys, const Deltas *deltas, int site, int p, int n) {
#pragma omp for collapse(4) schedule(dynamic, 4)
    for (int c = 0; c < deltas->count; c++)
        for (int row = 0; row < deltas->most_rows; row += BLOCK)
            for (int s = 0; s < MOST_SLICES; s++)
                for (int column = 0; column < n; column += COLUMNS)
                    expand_block(y, ys, deltas, site, p, c, s, row, column, BLOCK, COLUMNS);
}

/* Of the chunks of one thread. */
static void shrink_own(const float *x, int64_t xs, const Deltas *deltas, int site, int p, int c,
                       int end) {
    for (; c < end; c++) shrink_block(x, xs, deltas, site, p, c, 0, 0, INT32_MAX, INT32_MAX);
}

static void expand_own(float *y, int64_t ys, const Deltas *deltas, int site, int p, int c, int end,
                       int n) {
    for (; c < end; c++)
        for (int s = 0; s < MOST_SLICES; s++)
            for (int column = 0; column < n; column += COLUMNS)
                expand_block(y, ys, deltas, site, p, c, s, 0, column, INT32_MAX, COLUMNS);
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

/* Chunks of one thread, and what it will read of their first pieces: every A, then every B. */
typedef struct {
    int first, end;
    const float *regions[2 * MOST_AHEAD];
    int64_t lines[2 * MOST_AHEAD], sum;
} Share;

/* Lines of the memory of a chunk's first piece: of its A, and of its B, which lie behind each other
 * (see packing.py). */
static void lines_of(const Site *at, int64_t *down, int64_t *up) {
    const Piece *piece = at->pieces;
    *down = *up = 0;
    if (at->count == 0) return;
    *down = ((int64_t)piece->rank * piece->inputs + LINE - 1) / LINE;
    for (int s = 0; s < piece->slices; s++)
        *up += (int64_t)(piece->slice[s].rank_end - piece->slice[s].rank_start) *
            (piece->slice[s].column_end - piece->slice[s].column_start) / LINE;
}

/* One share for each of so many threads, alike in memory; neighbours stay together. */
static void share_of(const Deltas *deltas, int site, int who, int threads, Share *share) {
    int64_t down[MOST_AHEAD], up[MOST_AHEAD], sum = 0, before = 0;
    for (int c = 0; c < deltas->count; c++) {
        lines_of(deltas->chunks[c].sites + site, down + c, up + c);
        sum += down[c] + up[c];
    }
    share->first = share->end = 0;
    for (int c = 0; c < deltas->count; c++) {
        const int64_t all = down[c] + up[c], owner = (2 * before + all) * threads / (2 * sum + 1);
        if (owner < who) share->first = c + 1;
        if (owner <= who) share->end = c + 1;
        before += all;
    }
    const int count = share->end - share->first;
    share->sum = 0;
    for (int i = 0; i < count; i++) {
        const int c = share->first + i;
        const Piece *piece = deltas->chunks[c].sites[site].pieces;
        share->regions[i] = down[c] ? piece->down : 0;
        share->lines[i] = down[c];
        share->regions[count + i] = up[c] ? piece->slice[0].up : 0;
        share->lines[count + i] = up[c];
        share->sum += down[c] + up[c];
    }
}
