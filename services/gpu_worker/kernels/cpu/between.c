/* What lies between the products: norms, gates, rotations. fp32; threads are OpenMP's, shared with
 * torch, for steps that are large enough to be worth them.
 *
 * References of the same meaning: ../reference.py. Called through between.py.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "exponential.h"

enum { WORTH = 1 << 14 };  /* numbers that are worth a second thread */

/* to = x / rms(x) * weight (RMSNorm, arXiv 1910.07467); x and to may be the same. */
static inline void norm_row(const float *x, const float *weight, float *to, int n, float eps) {
    float squares = 0.0f;
    for (int i = 0; i < n; i++) squares += x[i] * x[i];
    const float scale = 1.0f / sqrtf(squares / n + eps);
    for (int i = 0; i < n; i++) to[i] = x[i] * scale * weight[i];
}

/* x, y, out: [rows, n]. x += y unless y is null; out = norm of x. */
void lorikeet_add_norm(float *x, const float *y, const float *weight, float *out, int rows, int n,
                       float eps) {
#pragma omp parallel for if ((int64_t)rows * n > WORTH)
    for (int row = 0; row < rows; row++) {
        float *to = x + (int64_t)row * n;
        if (y) {
            const float *add = y + (int64_t)row * n;
            for (int i = 0; i < n; i++) to[i] += add[i];
        }
        norm_row(to, weight, out + (int64_t)row * n, n, eps);
    }
}

/* gate_up: [rows, 2 * n], out: [rows, n]. out = gate * sigmoid(gate) * up. */
void lorikeet_gate(const float *gate_up, float *out, int rows, int n) {
#pragma omp parallel for if ((int64_t)rows * n > WORTH)
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

/* qkv: [rows, (heads + 2 * kv_heads) * head], queries and keys rotated in place, after a norm each
 * if q_norm is not null. cos, sin: [rows, head]. Keys and values go to pages[i] at offsets[i]. */
void lorikeet_enter_heads(float *qkv, const float *cos, const float *sin, const float *q_norm,
                          const float *k_norm, float eps, float *keys, float *values,
                          int64_t page_stride, const int64_t *pages, const int64_t *offsets,
                          int rows, int heads, int kv_heads, int head, int page_tokens) {
    const int width = (heads + 2 * kv_heads) * head;
#pragma omp parallel for if ((int64_t)rows * width > WORTH)
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
