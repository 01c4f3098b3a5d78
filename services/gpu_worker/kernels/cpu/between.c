/* What lies between the products: norms, gates, rotations. fp32; by the whole team for steps that
 * are large enough to be worth it, else by its first thread.
 *
 * References of the same meaning: ../reference.py. Called by layers.c.
 */

#include <math.h>
#include <omp.h>
#include <string.h>

#include "exponential.h"
#include "team.h"

enum { WORTH = 1 << 14 }; /* numbers that are worth a second thread */

/* Of so many rows, how many one thread takes. */
static int each(int rows, int width) {
    const int threads = (int64_t)rows * width > WORTH ? omp_get_num_threads() : 1;
    return rows > threads ? (rows + threads - 1) / threads : 1;
}

/* to = x / rms(x) * weight (RMSNorm, arXiv 1910.07467); x and to may be the same. */
static inline void norm_row(const float *x, const float *weight, float *to, int n, float eps) {
    float squares = 0.0f;
    for (int i = 0; i < n; i++) squares += x[i] * x[i];
    const float scale = 1.0f / sqrtf(squares / n + eps);
    for (int i = 0; i < n; i++) to[i] = x[i] * scale * weight[i];
}

void add_norm_team(float *x, const float *y, const float *weight, float *out, int rows, int n,
                   float eps) {
#pragma omp for schedule(static, each(rows, n))
    for (int row = 0; row < rows; row++) {
        float *to = x + (int64_t)row * n;
        if (y) {
            const float *add = y + (int64_t)row * n;
            for (int i = 0; i < n; i++) to[i] += add[i];
        }
        if (weight) norm_row(to, weight, out + (int64_t)row * n, n, eps);
    }
}

void gate_team(const float *gate_up, float *out, int rows, int n) {
#pragma omp for schedule(static, each(rows, n))
    for (int row = 0; row < rows; row++) {
        const float *gate = gate_up + (int64_t)row * 2 * n, *up = gate + n;
        float *to = out + (int64_t)row * n;
        for (int i = 0; i < n; i++) {
            const float e = exp_negative(-fabsf(gate[i]));
            to[i] = gate[i] * up[i] * (gate[i] < 0.0f ? e : 1.0f) / (1.0f + e);
        }
    }
}

/* The first half of `sin` is negated, so both halves turn alike. */
static inline void rotate(float *x, const float *cos, const float *sin, int head) {
    const int half = head / 2;
    for (int i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cos[i] + b * sin[i];
        x[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

void enter_heads_team(float *qkv, const float *cos, const float *sin, const float *q_norm,
                      const float *k_norm, float eps, float *keys, float *values,
                      int64_t page_stride, const int64_t *pages, const int64_t *offsets, int rows,
                      int heads, int kv_heads, int head, int page_tokens) {
    const int width = (heads + 2 * kv_heads) * head;
#pragma omp for schedule(static, each(rows, width))
    for (int row = 0; row < rows; row++) {
        float *q = qkv + (int64_t)row * width, *k = q + heads * head, *v = k + kv_heads * head;
        for (int h = 0; h < heads + kv_heads; h++) {
            float *x = q + h * head;
            if (q_norm) norm_row(x, h < heads ? q_norm : k_norm, x, head, eps);
            rotate(x, cos + (int64_t)row * head, sin + (int64_t)row * head, head);
        }
        for (int h = 0; h < kv_heads; h++) {
            const int64_t at =
                pages[row] * page_stride + ((int64_t)h * page_tokens + offsets[row]) * head;
            memcpy(keys + at, k + h * head, sizeof(float) * head);
            memcpy(values + at, v + h * head, sizeof(float) * head);
        }
    }
}
