/* See crowding.py. */

#include <math.h>

#include "fleet.h"

static const double LEAST_SHORTER = 0.1;

static double step_ms(const Place *place, int more) {
    return place->step_base + place->step_sequence * (double)(place_count(place) + more);
}

static bool is_shorter(double ms, const Place *source) {
    return ms < (1 - LEAST_SHORTER) * step_ms(source, 0);
}

static double least_ms(const Fleet *fleet) {
    double least = INFINITY;
    for (int i = 0; i < fleet->places_count; i++) {
        const Place *place = &fleet->places[i];
        if (place_may_take(place) && step_ms(place, 1) < least) least = step_ms(place, 1);
    }
    return least;
}

void left_by_some(Fleet *fleet) {
    const double least = least_ms(fleet);
    for (int i = 0; i < fleet->places_count; i++) {
        Place *place = &fleet->places[i];
        place->left = place_has_line(place) || is_shorter(least, place);
    }
}

/* Of all who are at either, to their ends. */
static double spared_ms(const Place *source, const Place *target, const Sequence *sequence) {
    const double there_ms = step_ms(target, 1);
    if (!is_shorter(there_ms, source)) return 0.0;
    const double own = (double)sequence->tokens_left * (step_ms(source, 0) - there_ms);
    const int64_t spared = source->tokens_left - sequence->tokens_left;
    return own + (double)spared * source->step_sequence -
           (double)target->tokens_left * target->step_sequence;
}

static bool out_of_a_crowd(Fleet *fleet, const Place *source, const Place *target,
                           const Sequence *sequence, Worth *worth) {
    worth->gain = spared_ms(source, target, sequence);
    Look look;
    if (worth->gain <= 0 || !place_looks(fleet, target, sequence, &look)) return false;
    if (look.waits || look.work_ms > source->work_ms) return false;
    const double again = place_cost_ms(target, sequence) * (double)(1 + place_count(target));
    worth->cost = again + place_load_ms(fleet, target, sequence->adapter);
    return true;
}

static bool move_from_a_crowd(Fleet *fleet, int number) {
    const Place *source = &fleet->places[number];
    const bool crowded = source->left && is_shorter(fleet->least_step_ms, source);
    if (!crowded || place_has_line(source)) return false;
    return move_together(fleet, number, out_of_a_crowd);
}

void spread(Fleet *fleet) {
    fleet->least_step_ms = least_ms(fleet);
    even_out(fleet, move_from_a_crowd);
}
