/* See Owed in greedy.py. */

#include <stdlib.h>

#include "fleet.h"

static int by_key(const void *a, const void *b) {
    const Keyed *one = a, *two = b;
    if (one->key != two->key) return one->key < two->key ? -1 : 1;
    return one->rank < two->rank ? -1 : 1;
}

/* Equal ones stay as they were. */
void sort_by(Fleet *fleet, int *items, int count, Key *key) {
    for (int i = 0; i < count; i++)
        fleet->keyed[i] = (Keyed){key(&fleet->sequences[items[i]]), i, items[i]};
    qsort(fleet->keyed, (size_t)count, sizeof *fleet->keyed, by_key);
    for (int i = 0; i < count; i++) items[i] = fleet->keyed[i].item;
}

double least_owed(const Sequence *sequence) { return -sequence->owed; }

/* By adapter, in the order that they are first seen. */
static int split(Fleet *fleet, const Place *place, Chosen *chosen) {
    const Sequence *all = fleet->sequences;
    int found = 0, count = 0, start = 0;
    for (int i = place->first; i < place->first + place->count; i++) {
        if (!chosen(&all[i])) continue;
        int *group = &fleet->group_of[all[i].adapter];
        if (!*group) fleet->groups[(*group = ++count) - 1] = (Group){0, 0, 0.0};
        fleet->groups[*group - 1].end++;
        fleet->items[found++] = i;
    }
    for (int i = 0; i < count; i++) {
        const int size = fleet->groups[i].end;
        fleet->groups[i] = (Group){start, start, 0.0};
        start += size;
    }
    for (int i = 0; i < found; i++) {
        const int item = fleet->items[i], group = fleet->group_of[all[item].adapter];
        fleet->grouped[fleet->groups[group - 1].end++] = item;
    }
    for (int i = 0; i < found; i++) fleet->group_of[all[fleet->items[i]].adapter] = 0;
    return count;
}

static void measure(Fleet *fleet, Group *group) {
    int *items = fleet->grouped + group->start;
    const int count = group->end - group->start;
    group->size = count;
    if (!fleet->owes) return;
    double owed = 0.0;
    sort_by(fleet, items, count, least_owed);
    for (int i = 0; i < count; i++) owed += fleet->sequences[items[i]].owed;
    group->size = count + fleet->weight * owed;
}

/* How many; they are in `sorted`, the largest first, and in each whoever is owed more. */
int groups_of(Fleet *fleet, const Place *place, Chosen *chosen) {
    const int count = split(fleet, place, chosen);
    for (int i = 0; i < count; i++) measure(fleet, &fleet->groups[i]);
    for (int i = 0; i < count; i++) fleet->keyed[i] = (Keyed){-fleet->groups[i].size, i, i};
    qsort(fleet->keyed, (size_t)count, sizeof *fleet->keyed, by_key);
    for (int i = 0; i < count; i++) fleet->sorted[i] = fleet->groups[fleet->keyed[i].item];
    return count;
}
