/* Attention of one token a sequence over its pages. fp32; threads are OpenMP's, shared with torch.
 *
 * Reference of the same meaning: ../reference.py. Called through attention.py, and by layers.c.
 */

#include <math.h>
#include <string.h>

#include "exponential.h"
#include "team.h"
#include "vector.h"

enum { MOST_HEAD = 256, MOST_GROUP = 16, MOST_PAGE = 64 };

/* w[t] = scale * q . k[t], for `count` keys of `head` numbers. */
static inline void scores(const float *q, const float *k, float *w, int count, int head,
                          float scale) {
    int t = 0;
    for (; t + 4 <= count; t += 4) {
        const float *a = k + t * head, *b = a + head, *c = b + head, *d = c + head;
        v8 sa = {0}, sb = {0}, sc = {0}, sd = {0};
        int i = 0;
        for (; i + 8 <= head; i += 8) {
            const v8 part = *(const v8 *)(q + i);
            sa += part * *(const v8 *)(a + i);
            sb += part * *(const v8 *)(b + i);
            sc += part * *(const v8 *)(c + i);
            sd += part * *(const v8 *)(d + i);
        }
        v4 four = sums(sa, sb, sc, sd);
        for (; i < head; i++) four += q[i] * (v4){a[i], b[i], c[i], d[i]};
        *(v4 *)(w + t) = four * scale;
    }
    for (; t < count; t++) {
        float sum = 0.0f;
        for (int i = 0; i < head; i++) sum += q[i] * k[t * head + i];
        w[t] = scale * sum;
    }
}

/* to = to * shrink + the sum of w[t] * v[t], 32 numbers at a time in registers. */
static inline void weigh(float *to, float shrink, const float *w, const float *v, int count,
                         int head) {
    int i = 0;
    for (; i + 32 <= head; i += 32) {
        v8 *at = (v8 *)(to + i);
        v8 a = at[0] * shrink, b = at[1] * shrink, c = at[2] * shrink, d = at[3] * shrink;
        for (int t = 0; t < count; t++) {
            const v8 *value = (const v8 *)(v + t * head + i);
            a += w[t] * value[0];
            b += w[t] * value[1];
            c += w[t] * value[2];
            d += w[t] * value[3];
        }
        at[0] = a, at[1] = b, at[2] = c, at[3] = d;
    }
    for (; i < head; i++) {
        float sum = to[i] * shrink;
        for (int t = 0; t < count; t++) sum += w[t] * v[t * head + i];
        to[i] = sum;
    }
}

/* Softmax is taken page by page (Milakov and Gimelshein, arXiv 1805.02867). */
void decode_attention_team(const float *q, int64_t q_stride, float *out, const int64_t *which,
                           const float *keys, const float *values, int64_t page_stride,
                           const int32_t *tables, int64_t table_stride, const int32_t *starts,
                           const int32_t *ends, int rows, int kv_heads, int group, int head,
                           int page_tokens, float scale) {
    const int64_t width = (int64_t)kv_heads * group * head;
#pragma omp for collapse(2) schedule(dynamic, 2)
    for (int row = 0; row < rows; row++) {
        for (int kv = 0; kv < kv_heads; kv++) {
            const float *query = q + which[row] * q_stride + (int64_t)kv * group * head;
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
                    scores(query + g * head, k, w, count, head, scale);
                    for (int t = 0; t < count; t++) top = w[t] > top ? w[t] : top;
                    const float shrink = sum[g] > 0.0f ? exp_negative(most[g] - top) : 0.0f;
                    float total = 0.0f;
                    for (int t = 0; t < count; t++) {
                        w[t] = exp_negative(w[t] - top);
                        total += w[t];
                    }
                    most[g] = top;
                    sum[g] = sum[g] * shrink + total;
                    weigh(acc[g], shrink, w, v, count, head);
                }
                at += count;
            }
            float *result = out + which[row] * width + (int64_t)kv * group * head;
            for (int g = 0; g < group; g++)
                for (int i = 0; i < head; i++) result[g * head + i] = acc[g][i] / sum[g];
        }
    }
}

/* Whether there is room for such sizes. */
int lorikeet_attends(int group, int head, int page_tokens) {
    return head <= MOST_HEAD && group <= MOST_GROUP && page_tokens <= MOST_PAGE;
}

/* As decode_attention_team in team.h, if there is room. */
void lorikeet_decode_attention(const float *q, int64_t q_stride, float *out, const int64_t *which,
                               const float *keys, const float *values, int64_t page_stride,
                               const int32_t *tables, int64_t table_stride, const int32_t *starts,
                               const int32_t *ends, int rows, int kv_heads, int group, int head,
                               int page_tokens, float scale) {
#pragma omp parallel
    decode_attention_team(q, q_stride, out, which, keys, values, page_stride, tables, table_stride,
                          starts, ends, rows, kv_heads, group, head, page_tokens, scale);
}
