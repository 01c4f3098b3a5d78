/* See board.py. */

#include "fleet.h"

void board_move(Fleet *fleet, int number, int target, Reason reason, double gain_ms) {
    Sequence *sequence = &fleet->sequences[number];
    const int source = sequence->at;
    place_give(&fleet->places[source], sequence);
    targets_changed(fleet, source);
    busiest_changed(fleet, source);
    place_take(fleet, &fleet->places[target], sequence);
    targets_changed(fleet, target);
    busiest_changed(fleet, target);
    sequence->at = target;
    sequence->frozen = true;
    fleet->moves[fleet->moves_count++] = (Move){number, source, target, reason, gain_ms / 1000};
}

/* Its makespan and its imbalance. */
void board_measure(Fleet *fleet) {
    const Place *busiest = NULL;
    for (int i = 0; i < fleet->places_count; i++) {
        const Place *place = &fleet->places[i];
        if (!busiest || place->work_ms > busiest->work_ms) busiest = place;
    }
    if (!busiest) return;
    double sum = 0.0;
    int count = 0;
    for (int i = 0; i < fleet->places_count; i++) {
        const Place *place = &fleet->places[i];
        if (!place->takes && place != busiest) continue;
        sum += place->work_ms;
        count++;
    }
    const double mean = sum / count;
    fleet->makespan_ms = busiest->work_ms;
    if (mean != 0.0 && place_has_line(busiest)) fleet->imbalance = busiest->work_ms / mean - 1;
}
