/* See place.py: every function is one of it. */

#include "fleet.h"

static int64_t least(int64_t a, int64_t b) { return b < a ? b : a; }
static int64_t most(int64_t a, int64_t b) { return b > a ? b : a; }
static double larger(double a, double b) { return b > a ? b : a; }

void place_begin(Fleet *fleet, Place *place) {
    const int64_t count = place_count(place);
    int64_t side_by_side = place->most_sequences;
    if (place->lengths)
        side_by_side = least(side_by_side, place->total_tokens * count / place->lengths);
    place->side_by_side = most(side_by_side, 1);
    place->token_ms = place->step_base / (double)place->side_by_side + place->step_sequence;
    place->work_ms = (double)place->tokens_left * place->token_ms +
                     (double)place->waiting_tokens * place->step_token;
    place->room_tokens = place->free_tokens - place->tokens_left - place->waiting_tokens;
    place->seats = place->most_sequences - count;
    place->line = place->seats + place->most_waiting;
    place->adapters[0] = SEEN | HELD | PRESENT;
    for (int i = place->first; i < place->first + place->count; i++) {
        const int adapter = fleet->sequences[i].adapter;
        if (place_adapter(fleet, place, adapter) & HELD) continue;
        place->adapters[adapter] |= HELD | PRESENT;
        place->slots--;
    }
}

static bool contains(Fleet *fleet, PyObject *set, PyObject *adapter) {
    if (fleet->failed || !PySet_GET_SIZE(set)) return false;
    const int found = PySequence_Contains(set, adapter);
    fleet->failed = found < 0;
    return found > 0;
}

unsigned char place_adapter(Fleet *fleet, const Place *place, int adapter) {
    unsigned char *flags = &place->adapters[adapter];
    if (*flags) return *flags;
    PyObject *name = fleet->adapters.names[adapter];
    *flags = SEEN;
    if (contains(fleet, place->in_use, name)) *flags |= HELD | PRESENT;
    else if (contains(fleet, place->resident, name)) *flags |= PRESENT;
    else if (contains(fleet, place->on_host, name)) *flags |= ON_HOST;
    return *flags;
}

static bool may_wait(const Place *place) { return place->most_waiting > 0 && place->line > 0; }

bool place_may_take(const Place *place) {
    const bool may_run = place->seats > 0 && place->room_tokens >= 0;
    return place->takes && (may_run || may_wait(place));
}

bool place_has_line(const Place *place) { return place_count(place) > place->side_by_side; }

int64_t place_count(const Place *place) { return place->named + place->others; }

double place_run_ms(const Place *place, const Sequence *sequence) {
    const double prompt = sequence->waiting ? (double)sequence->tokens * place->step_token : 0.0;
    return (double)sequence->tokens_left * place->token_ms + prompt;
}

double place_cost_ms(const Place *place, const Sequence *sequence) {
    return sequence->waiting ? 0.0 : (double)sequence->tokens * place->carry_ms;
}

static double load_ms(const Place *place, unsigned char adapter) {
    if (adapter & PRESENT) return 0.0;
    return adapter & ON_HOST ? place->copy_ms : place->load_ms;
}

double place_load_ms(Fleet *fleet, const Place *place, int adapter) {
    return load_ms(place, place_adapter(fleet, place, adapter));
}

static double work_ms_with(const Place *place, const Sequence *sequence, unsigned char adapter) {
    const double moved = place_cost_ms(place, sequence) + load_ms(place, adapter);
    return place->work_ms + place_run_ms(place, sequence) + moved;
}

double place_work_ms_with(Fleet *fleet, const Place *place, const Sequence *sequence) {
    return work_ms_with(place, sequence, place_adapter(fleet, place, sequence->adapter));
}

static int64_t needs(const Place *place, const Sequence *sequence, unsigned char adapter) {
    const int64_t more = adapter & PRESENT ? 0 : place->adapter_tokens;
    return sequence->tokens + sequence->tokens_left + more;
}

bool place_looks(Fleet *fleet, const Place *place, const Sequence *sequence, Look *look) {
    const unsigned char adapter = place_adapter(fleet, place, sequence->adapter);
    if (!place_may_take(place) || (!(adapter & HELD) && place->slots < 1)) return false;
    const int64_t tokens = needs(place, sequence, adapter);
    look->waits = !(place->seats > 0 && tokens <= place->room_tokens);
    look->work_ms = work_ms_with(place, sequence, adapter);
    if (!look->waits) return true;
    return sequence->waiting && may_wait(place) && tokens <= place->total_tokens;
}

int64_t place_longest(const Place *place, bool waiting) {
    const int64_t starts = place->seats > 0 ? place->room_tokens : -1;
    return waiting && may_wait(place) ? most(starts, place->total_tokens) : starts;
}

void place_give(Place *place, const Sequence *sequence) {
    place->named--;
    place->tokens_left -= sequence->tokens_left;
    place->work_ms -= place_run_ms(place, sequence);
}

void place_take(Fleet *fleet, Place *place, const Sequence *sequence) {
    const unsigned char adapter = place_adapter(fleet, place, sequence->adapter);
    place->work_ms = work_ms_with(place, sequence, adapter);
    place->room_tokens -= needs(place, sequence, adapter);
    place->seats--;
    place->line--;
    place->slots -= !(adapter & HELD);
    place->adapters[sequence->adapter] |= HELD | PRESENT;
    place->named++;
    place->tokens_left += sequence->tokens_left;
}

double gain_ms(Fleet *fleet, const Place *source, const Place *target, const Sequence *sequence) {
    const double after = larger(source->work_ms - place_run_ms(source, sequence),
                                place_work_ms_with(fleet, target, sequence));
    return larger(source->work_ms, target->work_ms) - after;
}
