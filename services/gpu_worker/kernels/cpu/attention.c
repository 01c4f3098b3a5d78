/* Attention of one token a sequence over its pages. fp32; threads are OpenMP's, shared with torch.
 *
 * Reference of the same meaning: ../reference.py. Called through attention.py.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MOST_HEAD = 256, MOST_GROUP = 16, MOST_PAGE = 64 };

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
