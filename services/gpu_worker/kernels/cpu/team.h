/* What a team of OpenMP's threads does together: each of them calls these with the same arguments,
 * and none goes on before all is done. */

#include <stdint.h>

#ifndef TEAM
#define TEAM

typedef struct Deltas Deltas;

enum { FLOAT32, INT8, INT8_DYNAMIC };

/* Of a product, in panels of 16 outputs, the last filled up with zeros: float or int8,
 * [panels, inputs, 16], or for INT8_DYNAMIC [panels, ceil(inputs / 4), 16, 4]. Each output of int8
 * has a scale, and for INT8_DYNAMIC the sum of its numbers. bias may be null. */
typedef struct {
    const void *packed;
    const float *bias, *scales;
    const int32_t *sums;
    int32_t outputs, inputs, kind, site;
} Weights;

/* Room for x in eight bits, for INT8_DYNAMIC alone: [m, inputs, filled up to fours], and [m]. */
typedef struct {
    uint8_t *numbers;
    float *scales;
} Rounded;

/* y[m, outputs] = x[m, inputs] w^T + bias, and for the rows of every chunk + (x A^T) B at the
 * site; rows of x are `xs` apart. deltas may be null. */
void linear_team(const float *x, int64_t xs, const Weights *weights, const Rounded *rounded,
                 float *y, int64_t ys, int m, const Deltas *deltas);

/* x, y, out: [rows, n]. x += y unless y is null; out = norm of x unless weight is null. */
void add_norm_team(float *x, const float *y, const float *weight, float *out, int rows, int n,
                   float eps);

/* gate_up: [rows, 2 * n], out: [rows, n]. out = gate * sigmoid(gate) * up. */
void gate_team(const float *gate_up, float *out, int rows, int n);

/* qkv: [rows, (heads + 2 * kv_heads) * head], queries and keys rotated in place, after a norm each
 * if q_norm is not null. cos, sin: [rows, head]. Keys and values go to pages[i] at offsets[i]. */
void enter_heads_team(float *qkv, const float *cos, const float *sin, const float *q_norm,
                      const float *k_norm, float eps, float *keys, float *values,
                      int64_t page_stride, const int64_t *pages, const int64_t *offsets, int rows,
                      int heads, int kv_heads, int head, int page_tokens);

/* One query token a sequence: which[i] is the row of the i-th in q (rows q_stride apart) and in
 * out ([kv_heads * group, head] a row). A page holds, for this layer, [kv_heads, page_tokens, head]
 * keys and as many values. The i-th sees positions starts[i] to ends[i] - 1, whose pages are
 * tables[i, position / page_tokens]. */
void decode_attention_team(const float *q, int64_t q_stride, float *out, const int64_t *which,
                           const float *keys, const float *values, int64_t page_stride,
                           const int32_t *tables, int64_t table_stride, const int32_t *starts,
                           const int32_t *ends, int rows, int kv_heads, int group, int head,
                           int page_tokens, float scale);

#endif
