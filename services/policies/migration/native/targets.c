/* See targets.py and placement's ranking.py: the least busy first, of equals the first. */

#include "fleet.h"

/* Where it stands, or would, of a base model's. */
static int found(const Fleet *fleet, const Base *base, double work_ms, int place) {
    const int *order = fleet->order + base->start;
    int from = 0, to = base->open;
    while (from < to) {
        const int middle = (from + to) / 2, other = order[middle];
        const double there = fleet->places[other].ranked_ms;
        if (there < work_ms || (there == work_ms && other < place)) from = middle + 1;
        else to = middle;
    }
    return from;
}

void targets_changed(Fleet *fleet, int number) {
    Place *place = &fleet->places[number];
    Base *base = &fleet->bases[place->base];
    int *order = fleet->order + base->start;
    if (place->ranked) {
        const int at = found(fleet, base, place->ranked_ms, number);
        base->open--;
        memmove(order + at, order + at + 1, (size_t)(base->open - at) * sizeof *order);
    }
    place->ranked = place_may_take(place);
    if (!place->ranked) return;
    place->ranked_ms = place->work_ms;
    const int at = found(fleet, base, place->ranked_ms, number);
    memmove(order + at + 1, order + at, (size_t)(base->open - at) * sizeof *order);
    order[at] = number;
    base->open++;
}

void targets_begin(Fleet *fleet) {
    bool any = false;
    for (int i = 0; i < fleet->bases_count; i++)
        fleet->bases[i].longest[0] = fleet->bases[i].longest[1] = INT64_MAX;
    for (int i = 0; i < fleet->places_count; i++) {
        const Place *place = &fleet->places[i];
        targets_changed(fleet, i);
        if (!place->ranked) continue;
        if (!any || place->token_ms < fleet->least_token_ms)
            fleet->least_token_ms = place->token_ms;
        if (!any || place->step_token < fleet->least_prompt_ms)
            fleet->least_prompt_ms = place->step_token;
        any = true;
    }
}

/* Nobody's room grows in a round: what is longer need not be searched for again. */
static void remember_longest(Fleet *fleet, Base *base, bool waiting) {
    int64_t longest = -1;
    for (int i = 0; i < base->open; i++) {
        const int64_t there = place_longest(&fleet->places[fleet->order[base->start + i]], waiting);
        if (there > longest) longest = there;
    }
    base->longest[waiting] = longest;
}

/* Of the same the first in the fleet. */
static bool is_better(const Look *a, int number_a, const Look *b, int number_b) {
    if (a->waits != b->waits) return b->waits;
    return a->work_ms < b->work_ms || (a->work_ms == b->work_ms && number_a < number_b);
}

int targets_best(Fleet *fleet, int source, const Sequence *sequence) {
    Base *base = &fleet->bases[fleet->places[source].base];
    if (sequence->tokens + sequence->tokens_left > base->longest[sequence->waiting]) return -1;
    double least_ms = (double)sequence->tokens_left * fleet->least_token_ms;
    least_ms += sequence->waiting ? (double)sequence->tokens * fleet->least_prompt_ms : 0.0;
    int best = -1;
    Look least = {true, 0.0}, look;
    for (int i = 0; i < base->open; i++) {
        const int number = fleet->order[base->start + i];
        const Place *place = &fleet->places[number];
        if (!least.waits && place->work_ms + least_ms > least.work_ms) break;
        if (number == source || !place_looks(fleet, place, sequence, &look)) continue;
        if (best >= 0 && !is_better(&look, number, &least, best)) continue;
        best = number;
        least = look;
    }
    if (best < 0) remember_longest(fleet, base, sequence->waiting);
    return best;
}
