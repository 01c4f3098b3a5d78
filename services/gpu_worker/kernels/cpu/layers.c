/* All layers of a step in one call: the threads form one team for all of them, and nothing waits
 * for Python in between. The same in torch: ../layers.py. Called through layers.py.
 */

#include <math.h>

#include "team.h"

typedef struct {
    Weights qkv, o, gate_up, down;
    const float *attention_norm, *mlp_norm, *q_norm, *k_norm;
} Layer;

/* Rows of x and the like lie behind each other; keys and values are a layer's. */
typedef struct {
    const Layer *layers;
    float *x, *normed, *qkv, *seen, *gate_up, *gated, *added;
    const Deltas *deltas;
    Rounded rounded;
    const float *cos, *sin;
    const int64_t *pages, *offsets, *singles;
    const int32_t *tables, *starts, *ends;
    float *const *keys, *const *values;
    int64_t page_stride, table_stride;
    int32_t count, rows, single_rows, heads, kv_heads, head, page_tokens;
    float eps, head_eps;
} Step;

static void product(const Step *step, const Weights *w, const float *x, float *y) {
    linear_team(x, w->inputs, w, &step->rounded, y, w->outputs, step->rows, step->deltas);
}

/* Up to attention, and through that of single tokens. */
static void enter(const Step *s, int at) {
    const Layer *layer = s->layers + at;
    add_norm_team(s->x, at > 0 ? s->added : 0, layer->attention_norm, s->normed, s->rows,
                  layer->qkv.inputs, s->eps);
    product(s, &layer->qkv, s->normed, s->qkv);
    enter_heads_team(s->qkv, s->cos, s->sin, layer->q_norm, layer->k_norm, s->head_eps, s->keys[at],
                     s->values[at], s->page_stride, s->pages, s->offsets, s->rows, s->heads,
                     s->kv_heads, s->head, s->page_tokens);
    if (s->single_rows > 0)
        decode_attention_team(s->qkv, layer->qkv.outputs, s->seen, s->singles, s->keys[at],
                              s->values[at], s->page_stride, s->tables, s->table_stride, s->starts,
                              s->ends, s->single_rows, s->kv_heads, s->heads / s->kv_heads, s->head,
                              s->page_tokens, 1.0f / sqrtf(s->head));
}

/* From attention to what the layer adds, which the next one takes. */
static void leave(const Step *s, int at) {
    const Layer *layer = s->layers + at;
    product(s, &layer->o, s->seen, s->added);
    add_norm_team(s->x, s->added, layer->mlp_norm, s->normed, s->rows, layer->o.outputs, s->eps);
    product(s, &layer->gate_up, s->normed, s->gate_up);
    gate_team(s->gate_up, s->gated, s->rows, layer->down.inputs);
    product(s, &layer->down, s->gated, s->added);
    if (at + 1 == s->count)
        add_norm_team(s->x, s->added, 0, 0, s->rows, layer->down.outputs, s->eps);
}

/* Stages `from` to `to` - 1: layer i enters attention in stage 2 i and leaves it in 2 i + 1. */
void lorikeet_layers(const Step *step, int from, int to) {
#pragma omp parallel
    for (int stage = from; stage < to; stage++)
        if (stage % 2)
            leave(step, stage / 2);
        else
            enter(step, stage / 2);
}
