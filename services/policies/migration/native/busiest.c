/* The busiest place first, of equals the first in the fleet. */

#include "fleet.h"

static bool before(const Fleet *fleet, int a, int b) {
    const double of_a = fleet->places[a].work_ms, of_b = fleet->places[b].work_ms;
    return of_a > of_b || (of_a == of_b && a < b);
}

static void put(Fleet *fleet, int at, int place) {
    fleet->heap[at] = place;
    fleet->spot[place] = at;
}

static void rise(Fleet *fleet, int at) {
    const int place = fleet->heap[at];
    while (at > 0 && before(fleet, place, fleet->heap[(at - 1) / 2])) {
        put(fleet, at, fleet->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(fleet, at, place);
}

static void sink(Fleet *fleet, int at) {
    const int place = fleet->heap[at];
    for (int child = 2 * at + 1; child < fleet->heap_size; child = 2 * at + 1) {
        if (child + 1 < fleet->heap_size &&
            before(fleet, fleet->heap[child + 1], fleet->heap[child]))
            child++;
        if (!before(fleet, fleet->heap[child], place)) break;
        put(fleet, at, fleet->heap[child]);
        at = child;
    }
    put(fleet, at, place);
}

void busiest_begin(Fleet *fleet) {
    fleet->heap_size = fleet->places_count;
    for (int i = 0; i < fleet->places_count; i++) put(fleet, i, i);
    for (int at = fleet->heap_size / 2 - 1; at >= 0; at--) sink(fleet, at);
}

int busiest_first(const Fleet *fleet) { return fleet->heap_size ? fleet->heap[0] : -1; }

void busiest_drop_first(Fleet *fleet) {
    fleet->spot[fleet->heap[0]] = -1;
    fleet->heap_size--;
    if (!fleet->heap_size) return;
    put(fleet, 0, fleet->heap[fleet->heap_size]);
    sink(fleet, 0);
}

void busiest_changed(Fleet *fleet, int place) {
    if (fleet->spot[place] < 0) return;
    rise(fleet, fleet->spot[place]);
    sink(fleet, fleet->spot[place]);
}
