/* A fleet while a round is planned greedily, as board.py and place.py have it: the same sums in the
 * same order, so that every move is theirs. What has no equal here is left to them. */

#ifndef FLEET
#define FLEET

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "names.h"

typedef struct {
    PyObject *request;
    int64_t tokens, tokens_left;
    double owed;
    int adapter; /* its number; 0 is the base model alone */
    int at;      /* the place that has it */
    bool waiting, frozen;
} Sequence;

enum { SEEN = 1, HELD = 2, PRESENT = 4, ON_HOST = 8 }; /* of an adapter at a place */

/* See place.py for what is not said here. `carry_ms`: of a token's keys and values, moved or computed
 * again. `named`: sequences that are, from `first` on when the round began. `left`: anything may
 * leave it for balance. */
typedef struct {
    PyObject *id, *sequences, *resident, *on_host, *in_use;
    unsigned char *adapters; /* flags by number */
    int64_t most_sequences, most_waiting, total_tokens, free_tokens, adapter_tokens;
    double step_base, step_sequence, step_token, load_ms, copy_ms, carry_ms;
    int64_t named, others, tokens_left, waiting_tokens, lengths, side_by_side, room_tokens, seats, line, slots;
    double token_ms, work_ms, ranked_ms;
    int first, count, base;
    bool takes, draining, left, ranked;
} Place;

/* Of a base model: places that may take something stand in `order` from `start` on. `longest`: a
 * sequence that may come, by whether it waits; -1: not known. */
typedef struct {
    int start, open;
    int64_t longest[2];
} Base;

typedef enum { BALANCE, MEMORY, DRAIN, REASONS } Reason;

typedef struct {
    int sequence, source, target;
    Reason reason;
    double gain_seconds;
} Move;

typedef struct {
    int start, end; /* in `grouped` */
    double size;
} Group;

typedef struct {
    double key;
    int rank, item;
} Keyed;

typedef struct {
    int places_count, sequences_count, bases_count, largest; /* of a place's sequences */
    Place *places;
    Sequence *sequences;
    Base *bases;
    Names workers, requests, adapters, models;
    unsigned char *flags;
    int *order;       /* of places, see Base */
    int *heap, *spot; /* the busiest first; where each is in it, -1: not at all */
    int heap_size;
    int *grouped, *group_of, *items;
    Group *groups, *sorted;
    Keyed *keyed;
    double *gains;
    Move *moves;
    Py_ssize_t moves_count, most_moves;
    double weight; /* of what is owed, see greedy.py */
    bool owes;
    bool failed; /* a question to Python raised; nothing more is asked */
    double least_token_ms, least_prompt_ms, least_step_ms, makespan_ms, imbalance;
} Fleet;

/* read.c; `frozen` and `owed` may be null. False: an error is set, or none is, and then the fleet is
 * left to Python. */
bool fleet_read(Fleet *fleet, PyObject *loads, PyObject *frozen, PyObject *owed);

/* fleet.c. False: an error is set. */
bool fleet_begin_places(Fleet *fleet, int count);
bool fleet_begin_sequences(Fleet *fleet);
bool fleet_begin_round(Fleet *fleet);
void fleet_end(Fleet *fleet);

/* place.c */
typedef struct {
    bool waits; /* it would not start at once */
    double work_ms; /* of all, if it came too */
} Look;
void place_begin(Fleet *fleet, Place *place);
unsigned char place_adapter(Fleet *fleet, const Place *place, int adapter);
bool place_may_take(const Place *place);
bool place_has_line(const Place *place);
int64_t place_count(const Place *place);
double place_run_ms(const Place *place, const Sequence *sequence);
double place_cost_ms(const Place *place, const Sequence *sequence);
double place_load_ms(Fleet *fleet, const Place *place, int adapter);
double place_work_ms_with(Fleet *fleet, const Place *place, const Sequence *sequence);
/* False: it has no room. */
bool place_looks(Fleet *fleet, const Place *place, const Sequence *sequence, Look *look);
int64_t place_longest(const Place *place, bool waiting);
void place_give(Place *place, const Sequence *sequence);
void place_take(Fleet *fleet, Place *place, const Sequence *sequence);
double gain_ms(Fleet *fleet, const Place *source, const Place *target, const Sequence *sequence);

/* targets.c. -1: it can go nowhere. */
void targets_begin(Fleet *fleet);
void targets_changed(Fleet *fleet, int place);
int targets_best(Fleet *fleet, int source, const Sequence *sequence);

/* busiest.c: a heap. -1: it is empty. */
void busiest_begin(Fleet *fleet);
int busiest_first(const Fleet *fleet);
void busiest_drop_first(Fleet *fleet);
void busiest_changed(Fleet *fleet, int place);

/* groups.c. Of the sequences that were at a place when the round began, those that are chosen. */
typedef bool Chosen(const Sequence *sequence);
typedef double Key(const Sequence *sequence);
int groups_of(Fleet *fleet, const Place *place, Chosen *chosen);
void sort_by(Fleet *fleet, int *items, int count, Key *key);
double least_owed(const Sequence *sequence);

/* board.c, greedy.c and crowding.c */
typedef struct {
    double gain, cost;
} Worth;
typedef bool Judge(Fleet *fleet, const Place *source, const Place *target, const Sequence *sequence,
                   Worth *worth);
typedef bool MoveFrom(Fleet *fleet, int source);
void board_move(Fleet *fleet, int sequence, int target, Reason reason, double gain_ms);
void board_measure(Fleet *fleet);
void make_room(Fleet *fleet);
void balance(Fleet *fleet);
void even_out(Fleet *fleet, MoveFrom *move_from);
bool move_together(Fleet *fleet, int source, Judge *judge);
void left_by_some(Fleet *fleet);
void spread(Fleet *fleet);

#endif
