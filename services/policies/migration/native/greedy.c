/* See greedy.py. */

#include "fleet.h"

static const double MIN_GAIN_OVER_COST = 2.0;
static const double MEMORY_SHORT = 0.1;

static bool is_any(const Sequence *sequence) { return sequence != NULL; }
static bool may_start(const Sequence *each) { return each->waiting && !each->frozen; }
static bool may_go_on(const Sequence *each) { return !each->waiting && !each->frozen; }
static double begun_last(const Sequence *sequence) { return !sequence->waiting; }

static double least_relief(const Sequence *sequence) {
    const int64_t tokens = sequence->tokens > 1 ? sequence->tokens : 1;
    return -(double)sequence->tokens_left / (double)tokens;
}

static bool is_full(const Fleet *fleet) { return fleet->moves_count >= fleet->most_moves; }

static bool move_to_best(Fleet *fleet, int source, int sequence, Reason reason) {
    const int target = targets_best(fleet, source, &fleet->sequences[sequence]);
    if (target >= 0) board_move(fleet, sequence, target, reason, 0.0);
    return target >= 0;
}

static void drain(Fleet *fleet, int source) {
    const int groups = groups_of(fleet, &fleet->places[source], is_any);
    int count = 0;
    for (int g = 0; g < groups; g++)
        for (int i = fleet->sorted[g].start; i < fleet->sorted[g].end; i++)
            fleet->items[count++] = fleet->grouped[i];
    sort_by(fleet, fleet->items, count, begun_last);
    for (int i = 0; i < count && !is_full(fleet); i++)
        move_to_best(fleet, source, fleet->items[i], DRAIN);
}

static void relieve(Fleet *fleet, int source) {
    const Place *place = &fleet->places[source];
    int64_t wanted = -place->free_tokens;
    int count = 0;
    for (int i = place->first; i < place->first + place->count; i++) {
        const Sequence *each = &fleet->sequences[i];
        if (each->waiting) continue;
        if (each->at == source) wanted += each->tokens_left;
        if (!each->frozen) fleet->items[count++] = i;
    }
    if ((double)place->free_tokens >= MEMORY_SHORT * (double)place->total_tokens) return;
    if (wanted <= 0) return;
    if (fleet->owes) sort_by(fleet, fleet->items, count, least_owed);
    sort_by(fleet, fleet->items, count, least_relief);
    for (int i = 0; i < count && wanted > 0 && !is_full(fleet); i++) {
        const Sequence *each = &fleet->sequences[fleet->items[i]];
        if (move_to_best(fleet, source, fleet->items[i], MEMORY))
            wanted -= each->tokens + each->tokens_left;
    }
}

void make_room(Fleet *fleet) {
    for (int i = 0; i < fleet->places_count; i++)
        if (fleet->places[i].draining) drain(fleet, i);
    for (int i = 0; i < fleet->places_count; i++) relieve(fleet, i);
}

void even_out(Fleet *fleet, MoveFrom *move_from) {
    busiest_begin(fleet);
    for (int first; (first = busiest_first(fleet)) >= 0 && !is_full(fleet);)
        if (!move_from(fleet, first)) busiest_drop_first(fleet);
}

static bool move_if_sooner(Fleet *fleet, int source, int number) {
    const Place *place = &fleet->places[source];
    const Sequence *sequence = &fleet->sequences[number];
    const int target = place_has_line(place) ? targets_best(fleet, source, sequence) : -1;
    if (target < 0) return false;
    const double gain = gain_ms(fleet, place, &fleet->places[target], sequence);
    if (gain > 0) board_move(fleet, number, target, BALANCE, gain);
    return gain > 0;
}

static bool move_waiting(Fleet *fleet, int source) {
    if (!place_has_line(&fleet->places[source])) return false;
    const int groups = groups_of(fleet, &fleet->places[source], may_start);
    const Py_ssize_t moved = fleet->moves_count;
    for (int g = 0; g < groups && fleet->moves_count == moved; g++)
        for (int i = fleet->sorted[g].start; i < fleet->sorted[g].end; i++)
            if (is_full(fleet) || !move_if_sooner(fleet, source, fleet->grouped[i])) break;
    return fleet->moves_count > moved;
}

static bool out_of_a_line(Fleet *fleet, const Place *source, const Place *target,
                          const Sequence *sequence, Worth *worth) {
    worth->gain = gain_ms(fleet, source, target, sequence);
    if (!place_has_line(source) || worth->gain <= 0) return false;
    Look look;
    if (!place_looks(fleet, target, sequence, &look)) return false;
    worth->cost = place_cost_ms(target, sequence) + place_load_ms(fleet, target, sequence->adapter);
    return true;
}

static bool move_running(Fleet *fleet, int source) {
    return place_has_line(&fleet->places[source]) && move_together(fleet, source, out_of_a_line);
}

void balance(Fleet *fleet) {
    even_out(fleet, move_waiting);
    even_out(fleet, move_running);
}

/* How many of these, of one adapter; `gains` has what each gains. */
static int worth_it(Fleet *fleet, int source, int target, const int *items, int count,
                    Judge *judge) {
    Place before = fleet->places[source], after = fleet->places[target];
    const int adapter = fleet->sequences[items[0]].adapter;
    const unsigned char flags = place_adapter(fleet, &after, adapter);
    double gains = 0.0, costs = 0.0;
    int worth = 0;
    for (int i = 0; i < count; i++) {
        const Sequence *each = &fleet->sequences[items[i]];
        Worth judged;
        if (!judge(fleet, &before, &after, each, &judged)) break;
        gains += judged.gain;
        costs += judged.cost;
        place_give(&before, each);
        place_take(fleet, &after, each);
        fleet->gains[i] = judged.gain;
        if (gains > MIN_GAIN_OVER_COST * costs) worth = i + 1;
    }
    after.adapters[adapter] = flags; /* its place's own */
    return worth;
}

bool move_together(Fleet *fleet, int source, Judge *judge) {
    const int groups = groups_of(fleet, &fleet->places[source], may_go_on);
    for (int g = 0; g < groups; g++) {
        const int *items = fleet->grouped + fleet->sorted[g].start;
        const int target = targets_best(fleet, source, &fleet->sequences[items[0]]);
        if (target < 0) continue;
        const Py_ssize_t size = fleet->sorted[g].end - fleet->sorted[g].start;
        const Py_ssize_t may = fleet->most_moves - fleet->moves_count;
        const int count = (int)(size < may ? size : may);
        const int worth = worth_it(fleet, source, target, items, count, judge);
        for (int i = 0; i < worth; i++)
            board_move(fleet, items[i], target, BALANCE, fleet->gains[i]);
        if (worth) return true;
    }
    return false;
}
