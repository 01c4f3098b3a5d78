/* Where a fleet is kept while its round lasts. */

#include "fleet.h"

static void *several(int count, size_t size) {
    void *memory = PyMem_Calloc((size_t)count + 1, size);
    if (!memory) PyErr_NoMemory();
    return memory;
}

bool fleet_begin_places(Fleet *fleet, int count) {
    fleet->places = several(count, sizeof *fleet->places);
    fleet->places_count = fleet->places ? count : 0;
    return fleet->places && names_begin(&fleet->workers, (size_t)count) &&
           names_begin(&fleet->models, (size_t)count) &&
           (fleet->order = several(count, sizeof *fleet->order)) &&
           (fleet->heap = several(count, sizeof *fleet->heap)) &&
           (fleet->spot = several(count, sizeof *fleet->spot));
}

static void *uncleared(Py_ssize_t count, size_t size) {
    void *memory = PyMem_Malloc(((size_t)count + 1) * size);
    if (!memory) PyErr_NoMemory();
    return memory;
}

/* Number 0 of the adapters is None, which is everywhere. */
bool fleet_begin_sequences(Fleet *fleet) {
    const int count = fleet->sequences_count, largest = fleet->largest;
    if (fleet->most_moves > count) fleet->most_moves = count; /* each moves once */
    return (fleet->sequences = uncleared(count, sizeof *fleet->sequences)) &&
           (fleet->grouped = uncleared(largest, sizeof *fleet->grouped)) &&
           (fleet->items = uncleared(largest, sizeof *fleet->items)) &&
           (fleet->groups = uncleared(largest, sizeof *fleet->groups)) &&
           (fleet->sorted = uncleared(largest, sizeof *fleet->sorted)) &&
           (fleet->keyed = uncleared(largest, sizeof *fleet->keyed)) &&
           (fleet->gains = uncleared(largest, sizeof *fleet->gains)) &&
           (fleet->moves = uncleared(fleet->most_moves, sizeof *fleet->moves)) &&
           names_begin(&fleet->requests, (size_t)count) &&
           names_begin(&fleet->adapters, (size_t)count + 1) &&
           names_number(&fleet->adapters, Py_None) == 0;
}

/* Once everything is read. */
bool fleet_begin_round(Fleet *fleet) {
    const size_t adapters = (size_t)fleet->adapters.count;
    fleet->bases_count = fleet->models.count;
    fleet->bases = several(fleet->bases_count, sizeof *fleet->bases);
    fleet->group_of = several(fleet->adapters.count, sizeof *fleet->group_of);
    fleet->flags = several(fleet->places_count, adapters);
    if (!fleet->bases || !fleet->group_of || !fleet->flags) return false;
    for (int i = 0; i < fleet->places_count; i++) {
        Place *place = &fleet->places[i];
        place->adapters = fleet->flags + (size_t)i * adapters;
        place_begin(fleet, place);
        fleet->bases[place->base].start++;
        fleet->spot[i] = -1;
    }
    for (int base = 0, start = 0; base < fleet->bases_count; base++) {
        const int count = fleet->bases[base].start;
        fleet->bases[base].start = start;
        start += count;
    }
    targets_begin(fleet);
    return !fleet->failed;
}

void fleet_end(Fleet *fleet) {
    for (int i = 0; i < fleet->places_count; i++) {
        Place *place = &fleet->places[i];
        Py_XDECREF(place->sequences);
        Py_XDECREF(place->resident);
        Py_XDECREF(place->on_host);
        Py_XDECREF(place->in_use);
    }
    names_end(&fleet->workers);
    names_end(&fleet->models);
    names_end(&fleet->requests);
    names_end(&fleet->adapters);
    void *const kept[] = {fleet->places, fleet->sequences, fleet->bases, fleet->flags,
                          fleet->order, fleet->heap, fleet->spot, fleet->grouped,
                          fleet->group_of, fleet->items, fleet->groups, fleet->sorted,
                          fleet->keyed, fleet->gains, fleet->moves};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) PyMem_Free(kept[i]);
}
