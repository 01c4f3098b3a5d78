/* What torch does badly on a CPU at the batch sizes of decoding: products with few rows, attention
 * over pages, and products with many small adapters. fp32; threads are OpenMP's, shared with torch.
 *
 * References of the same meaning: reference.py. Called through cpu.py.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float v8 __attribute__((vector_size(32), aligned(4)));

enum {
    PANEL = 16,   /* columns of a tile: two vectors */
    ROWS = 6,     /* rows of a tile: with two vectors each, twelve accumulators */
    DEPTH = 256,  /* of a sum before it is added up: short sums round less, and stay in cache */
    HEIGHT = 96,  /* rows whose inputs stay in the second-level cache */
    AHEAD = 64,   /* rows of a panel that are fetched early */
    LINE = 16,    /* numbers in a line of the cache */
    MOST_AHEAD = 256,
};
enum { MOST_HEAD = 256, MOST_GROUP = 16, MOST_PAGE = 64, MOST_SLICES = 3 };
enum { BLOCK = 48, RANKS = 12, COLUMNS = 512 }; /* of one task of an adapter's product */

/* e^x for x <= 0: 2^n times a polynomial on [-0.5, 0.5] ln 2, relative error below 2e-7. */
static inline float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = floorf(x * 1.44269504f + 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t i; float f; } scale = {.i = ((int32_t)n + 127) << 23};
    return p * scale.f;
}

static inline v8 all(float a) { return (v8){a, a, a, a, a, a, a, a}; }

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

/* w: [n, k]; packed: panels of 16 columns, [ceil(n / 16), k, 16], the last filled up with zeros. */
void lorikeet_pack(const float *w, float *packed, int n, int k) {
    for (int j = 0; j < (n + PANEL - 1) / PANEL * PANEL; j++)
        for (int i = 0; i < k; i++)
            packed[((int64_t)(j / PANEL) * k + i) * PANEL + j % PANEL] =
                j < n ? w[(int64_t)j * k + i] : 0.0f;
}

static inline float dot(const float *a, const float *b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* One query token a row. q, out: [rows, kv_heads * group, head]. A page holds, for this layer,
 * [kv_heads, page_tokens, head] keys and as many values. Row i sees positions starts[i] to
 * ends[i] - 1, whose pages are tables[i, position / page_tokens]. Softmax is taken page by page
 * (Milakov and Gimelshein, arXiv 1805.02867).
 * Returns -1, and does nothing, for sizes beyond what it has room for. */
int lorikeet_decode_attention(
    const float *q, float *out, const float *keys, const float *values, int64_t page_stride,
    const int32_t *tables, int64_t table_stride, const int32_t *starts, const int32_t *ends,
    int rows, int kv_heads, int group, int head, int page_tokens, float scale) {
    if (head > MOST_HEAD || group > MOST_GROUP || page_tokens > MOST_PAGE) return -1;
    const int64_t width = (int64_t)kv_heads * group * head;
#pragma omp parallel for collapse(2) schedule(dynamic, 2)
    for (int row = 0; row < rows; row++) {
        for (int kv = 0; kv < kv_heads; kv++) {
            const float *query = q + row * width + (int64_t)kv * group * head;
            float acc[MOST_GROUP][MOST_HEAD];
            float most[MOST_GROUP], sum[MOST_GROUP], weight[MOST_GROUP][MOST_PAGE];
            for (int g = 0; g < group; g++) {
                most[g] = -INFINITY;
                sum[g] = 0.0f;
                memset(acc[g], 0, sizeof(float) * head);
            }
            for (int at = starts[row]; at < ends[row];) {
                const int first = at % page_tokens;
                int count = page_tokens - first;
                if (count > ends[row] - at) count = ends[row] - at;
                const int64_t page = tables[row * table_stride + at / page_tokens];
                const int64_t offset =
                    page * page_stride + ((int64_t)kv * page_tokens + first) * head;
                const float *k = keys + offset, *v = values + offset;
                for (int g = 0; g < group; g++) {
                    float *w = weight[g], top = most[g];
                    for (int t = 0; t < count; t++) {
                        w[t] = scale * dot(query + g * head, k + t * head, head);
                        top = w[t] > top ? w[t] : top;
                    }
                    const float shrink = sum[g] > 0.0f ? exp_negative(most[g] - top) : 0.0f;
                    float total = 0.0f;
                    for (int t = 0; t < count; t++) {
                        w[t] = exp_negative(w[t] - top);
                        total += w[t];
                    }
                    most[g] = top;
                    sum[g] = sum[g] * shrink + total;
                    float *a = acc[g];
                    for (int i = 0; i < head; i++) a[i] *= shrink;
                    for (int t = 0; t < count; t++) {
                        const float *value = v + t * head;
                        for (int i = 0; i < head; i++) a[i] += w[t] * value[i];
                    }
                }
                at += count;
            }
            float *result = out + row * width + (int64_t)kv * group * head;
            for (int g = 0; g < group; g++)
                for (int i = 0; i < head; i++) result[g * head + i] = acc[g][i] / sum[g];
        }
    }
    return 0;
}

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

/* h[i, j] = x[i] . a[j] for so many rows of both. */
static inline __attribute__((always_inline)) void dots(
    const float *x, int64_t xs, const float *a, int n, float *h, int64_t hs, const int rows,
    const int ranks) {
    v8 c[4][3];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < ranks; j++) c[i][j] = all(0.0f);
    int k = 0;
    for (; k + 8 <= n; k += 8)
        for (int j = 0; j < ranks; j++) {
            const v8 av = *(const v8 *)(a + (int64_t)j * n + k);
            for (int i = 0; i < rows; i++) c[i][j] += av * *(const v8 *)(x + i * xs + k);
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < ranks; j++) {
            float sum = 0.0f;
            for (int l = 0; l < 8; l++) sum += c[i][j][l];
            for (int l = k; l < n; l++) sum += x[i * xs + l] * a[(int64_t)j * n + l];
            h[i * hs + j] = sum;
        }
}

static void shrink(const float *x, int64_t xs, const float *a, int n, float *h, int64_t hs,
                   int rows, int ranks) {
    for (int i = 0; i < rows; i += 4) {
        const int many = rows - i < 4 ? rows - i : 4;
        for (int j = 0; j < ranks; j += 3) {
            const float *xi = x + i * xs, *aj = a + (int64_t)j * n;
            float *hij = h + i * hs + j;
            switch (4 * (ranks - j < 3 ? ranks - j : 3) + many - 1) {
                case 15: dots(xi, xs, aj, n, hij, hs, 4, 3); break;
                case 14: dots(xi, xs, aj, n, hij, hs, 3, 3); break;
                case 13: dots(xi, xs, aj, n, hij, hs, 2, 3); break;
                case 12: dots(xi, xs, aj, n, hij, hs, 1, 3); break;
                case 11: dots(xi, xs, aj, n, hij, hs, 4, 2); break;
                case 10: dots(xi, xs, aj, n, hij, hs, 3, 2); break;
                case 9: dots(xi, xs, aj, n, hij, hs, 2, 2); break;
                case 8: dots(xi, xs, aj, n, hij, hs, 1, 2); break;
                case 7: dots(xi, xs, aj, n, hij, hs, 4, 1); break;
                case 6: dots(xi, xs, aj, n, hij, hs, 3, 1); break;
                case 5: dots(xi, xs, aj, n, hij, hs, 2, 1); break;
                default: dots(xi, xs, aj, n, hij, hs, 1, 1); break;
            }
        }
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

/* One panel of y[rows, n] = x[rows, k] w^T + bias. */
static void panel_of(const float *x, int64_t xs, const float *b, const float *bias, float *y,
                     int64_t ys, int rows, int columns, int k, Ahead *ahead) {
    if (columns == PANEL && !bias) {
        for (int d = 0; d < k; d += DEPTH)
            tiles(x + d, xs, b + (int64_t)d * PANEL, PANEL, y, ys,
                  k - d < DEPTH ? k - d : DEPTH, rows, d > 0, ahead);
        return;
    }
    float own[HEIGHT * PANEL];
    for (int d = 0; d < k; d += DEPTH)
        tiles(x + d, xs, b + (int64_t)d * PANEL, PANEL, own, PANEL,
              k - d < DEPTH ? k - d : DEPTH, rows, d > 0, ahead);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            y[i * ys + j] = own[i * PANEL + j] + (bias ? bias[j] : 0.0f);
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

/* y[m, n] = x[m, k] w^T + bias, and for the rows of every chunk + (x A^T) B at this site. */
void lorikeet_linear(const float *x, int64_t xs, const float *packed, const float *bias, float *y,
                     int64_t ys, int m, int n, int k, const Deltas *deltas, int site) {
    const int panels = (n + PANEL - 1) / PANEL, heights = (m + HEIGHT - 1) / HEIGHT;
    const float *regions[MOST_AHEAD];
    int64_t lines[MOST_AHEAD], wanted = 0;
    if (deltas && heights == 1 && deltas->count <= MOST_AHEAD)
        wanted = regions_of(deltas, site, regions, lines);
#pragma omp parallel
    {
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int block = 0; block < heights; block++) {
            for (int p = 0; p < panels; p++) {
                const int row = block * HEIGHT, at = p * PANEL;
                const int64_t first = wanted * p / panels;
                Ahead ahead = {regions, lines, first, wanted * (p + 1) / panels - first};
                panel_of(x + row * xs, xs, packed + (int64_t)p * k * PANEL, bias ? bias + at : bias,
                         y + row * ys + at, ys, m - row < HEIGHT ? m - row : HEIGHT,
                         n - at < PANEL ? n - at : PANEL, k, &ahead);
            }
        }
        for (int p = 0; deltas && p < deltas->most_pieces; p++) {
            shrink_all(x, xs, deltas, site, p);
            expand_all(y, ys, deltas, site, p, n);
        }
    }
}
