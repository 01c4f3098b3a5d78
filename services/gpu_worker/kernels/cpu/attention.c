/* Attention of one token a sequence over its pages. fp32; threads are OpenMP's, shared with torch.
 *
 * Reference of the same meaning: ../reference.py. Called through attention.py.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "exponential.h"

enum { MOST_HEAD = 256, MOST_GROUP = 16, MOST_PAGE = 64 };

static inline float dot(const float *a, const float *b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* One query token a sequence: which[i] is the row of the i-th in q (rows q_stride apart) and in
 * out ([kv_heads * group, head] a row). A page holds, for this layer, [kv_heads, page_tokens, head]
 * keys and as many values. The i-th sees positions starts[i] to ends[i] - 1, whose pages are
 * tables[i, position / page_tokens]. Softmax is taken page by page
 * (Milakov and Gimelshein, arXiv 1805.02867).
 * Returns -1, and does nothing, for sizes beyond what it has room for. */
int lorikeet_decode_attention(
    const float *q, int64_t q_stride, float *out, const int64_t *which, const float *keys,
    const float *values, int64_t page_stride, const int32_t *tables, int64_t table_stride,
    const int32_t *starts, const int32_t *ends, int rows, int kv_heads, int group, int head, int page_tokens, float scale) {
    if (head > MOST_HEAD || group > MOST_GROUP || page_tokens > MOST_PAGE) return -1;
    const int64_t width = (int64_t)kv_heads * group * head;
#pragma omp parallel for collapse(2) schedule(dynamic, 2)
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
            float *result = out + which[row] * width + (int64_t)kv * group * head;
            for (int g = 0; g < group; g++)
                for (int i = 0; i < head; i++) result[g * head + i] = acc[g][i] / sum[g];
        }
    }
    return 0;
}
