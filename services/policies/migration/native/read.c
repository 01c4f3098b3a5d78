/* WorkerLoad, SequenceLoad and what is in them, see loads.py and reports.py: read once. */

#include <math.h>

#include "fleet.h"
#include "words.h"

enum { MOST = 1 << 30 };                         /* products of two numbers fit */
static const double MOST_MS = 1e15; /* sums stay finite */

static bool read_count(PyObject *of, Word word, int64_t *into) {
    PyObject *value = word_of(of, word);
    if (!value) return false;
    int overflow = 1;
    if (PyLong_CheckExact(value)) *into = PyLong_AsLongLongAndOverflow(value, &overflow);
    Py_DECREF(value);
    return !overflow && *into >= 0 && *into <= MOST;
}

static bool is_number(double value) { return value >= 0 && value <= MOST_MS; }

static bool read_ms(PyObject *of, Word word, double *into) {
    PyObject *value = word_of(of, word);
    if (!value) return false;
    *into = PyFloat_AsDouble(value);
    Py_DECREF(value);
    return is_number(*into);
}

static bool read_flag(PyObject *of, Word word, bool *into) {
    PyObject *value = word_of(of, word);
    if (!value) return false;
    const int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    *into = truth > 0;
    return truth >= 0;
}

static bool read_set(PyObject *of, Word word, PyObject **into) {
    *into = word_of(of, word);
    return *into && PyAnySet_Check(*into);
}

static bool read_name(PyObject *of, Word word, Names *names, int *into) {
    PyObject *value = word_of(of, word);
    if (!value) return false;
    *into = names_number(names, value);
    Py_DECREF(value);
    return *into >= 0;
}

/* One that was not there before. */
static bool read_new_name(PyObject *of, Word word, Names *names, PyObject **into) {
    const int before = names->count;
    int number;
    if (!read_name(of, word, names, &number) || number < before) return false;
    *into = names->names[number];
    return true;
}

typedef struct {
    int64_t count, tokens, tokens_left;
} Sum;

static bool read_sum(PyObject *sums, Word word, Sum *into) {
    PyObject *sum = word_of(sums, word);
    const bool read = sum && read_count(sum, its_count, &into->count) &&
                      read_count(sum, its_tokens, &into->tokens) &&
                      read_count(sum, its_tokens_left, &into->tokens_left);
    Py_XDECREF(sum);
    return read;
}

static bool read_step_times(PyObject *load, Place *place) {
    PyObject *times = word_of(load, its_step_times);
    const bool read = times && read_ms(times, its_base, &place->step_base) &&
                      read_ms(times, its_sequence, &place->step_sequence) &&
                      read_ms(times, its_token, &place->step_token);
    Py_XDECREF(times);
    return read;
}

static bool read_carry_ms(PyObject *load, Place *place) {
    PyObject *move = word_of(load, its_move_ms);
    if (!move) return false;
    double move_ms = place->step_token;
    if (move != Py_None) move_ms = PyFloat_AsDouble(move);
    Py_DECREF(move);
    place->carry_ms = move_ms < place->step_token ? move_ms : place->step_token;
    return is_number(move_ms);
}

/* Of adapters beyond those in use, before those of its sequences. */
static bool read_slots(PyObject *load, Place *place) {
    PyObject *most = word_of(load, its_most_adapters);
    if (!most) return false;
    const bool limited = most != Py_None;
    Py_DECREF(most);
    place->slots = INT64_MAX / 2;
    if (!limited) return true;
    if (!read_count(load, its_most_adapters, &place->slots)) return false;
    const int none = PySequence_Contains(place->in_use, Py_None);
    place->slots -= PySet_GET_SIZE(place->in_use) - (none > 0);
    return none >= 0;
}

static bool read_times_and_room(PyObject *load, Place *place) {
    return read_step_times(load, place) && read_carry_ms(load, place) &&
           read_ms(load, its_load_ms, &place->load_ms) && read_ms(load, its_copy_ms, &place->copy_ms) &&
           read_count(load, its_most_sequences, &place->most_sequences) &&
           read_count(load, its_most_waiting, &place->most_waiting) &&
           read_count(load, its_total_tokens, &place->total_tokens) &&
           read_count(load, its_free_tokens, &place->free_tokens) &&
           read_count(load, its_adapter_tokens, &place->adapter_tokens) &&
           read_flag(load, its_takes, &place->takes) && read_flag(load, its_draining, &place->draining) &&
           !(place->takes && place->draining);
}

static bool read_adapters(PyObject *load, Place *place) {
    return read_set(load, its_resident, &place->resident) && read_set(load, its_on_host, &place->on_host) &&
           read_set(load, its_in_use, &place->in_use) && read_slots(load, place);
}

static bool read_sequence(Fleet *fleet, PyObject *from, PyObject *frozen, PyObject *owed,
                          Sequence *sequence) {
    if (!read_new_name(from, its_request, &fleet->requests, &sequence->request) ||
        !read_name(from, its_adapter, &fleet->adapters, &sequence->adapter) ||
        !read_count(from, its_tokens, &sequence->tokens) ||
        !read_count(from, its_tokens_left, &sequence->tokens_left) ||
        !read_flag(from, its_waiting, &sequence->waiting))
        return false;
    if (frozen) {
        const int found = PySequence_Contains(frozen, sequence->request);
        if (found < 0) return false;
        sequence->frozen = found;
    }
    if (!owed) return true;
    PyObject *value = PyDict_GetItemWithError(owed, sequence->request);
    const double ms = value ? PyFloat_AsDouble(value) : 0.0;
    if (PyErr_Occurred() || ms > MOST_MS) return false;
    sequence->owed = ms > 0 ? ms : 0.0;
    return true;
}

/* Its sequences follow those of places before it. */
static bool read_place(Fleet *fleet, PyObject *load, PyObject *frozen, PyObject *owed, int number) {
    Place *place = &fleet->places[number];
    Sum running, waiting;
    for (int i = 0; i < place->count; i++) words_fetch(PyTuple_GET_ITEM(place->sequences, i));
    PyObject *others = word_of(load, its_others);
    const bool read = others && read_sum(others, its_running, &running) &&
                      read_sum(others, its_waiting, &waiting);
    Py_XDECREF(others);
    if (!read || !read_new_name(load, its_id, &fleet->workers, &place->id) ||
        !read_name(load, its_base, &fleet->models, &place->base) ||
        !read_times_and_room(load, place) || !read_adapters(load, place))
        return false;
    place->others = running.count + waiting.count;
    place->named = place->count;
    place->tokens_left = running.tokens_left + waiting.tokens_left;
    place->waiting_tokens = waiting.tokens;
    place->lengths = running.tokens + waiting.tokens;
    for (int i = 0; i < place->count; i++) {
        Sequence *sequence = &fleet->sequences[place->first + i];
        PyObject *from = PyTuple_GET_ITEM(place->sequences, i);
        *sequence = (Sequence){.at = number};
        if (!read_sequence(fleet, from, frozen, owed, sequence)) return false;
        place->tokens_left += sequence->tokens_left;
        place->waiting_tokens += sequence->waiting ? sequence->tokens : 0;
        place->lengths += sequence->tokens;
    }
    place->lengths += place->tokens_left;
    return true;
}

static bool read_sequences(Fleet *fleet, PyObject *load, int number) {
    Place *place = &fleet->places[number];
    PyObject *sequences = word_of(load, its_sequences);
    if (!sequences) return false;
    place->sequences = PySequence_Tuple(sequences);
    Py_DECREF(sequences);
    if (!place->sequences) return false;
    place->first = fleet->sequences_count;
    const Py_ssize_t count = PyTuple_GET_SIZE(place->sequences);
    for (Py_ssize_t i = 0; i < count; i++)
        __builtin_prefetch(PyTuple_GET_ITEM(place->sequences, i));
    if (count > MOST - fleet->sequences_count) return false;
    fleet->sequences_count += place->count = (int)count;
    if (place->count > fleet->largest) fleet->largest = place->count;
    return true;
}

bool fleet_read(Fleet *fleet, PyObject *loads, PyObject *frozen, PyObject *owed) {
    if (PyTuple_GET_SIZE(loads) > MOST) return false;
    if (!fleet_begin_places(fleet, (int)PyTuple_GET_SIZE(loads))) return false;
    for (int i = 0; i < fleet->places_count; i++) words_fetch(PyTuple_GET_ITEM(loads, i));
    for (int i = 0; i < fleet->places_count; i++)
        if (!read_sequences(fleet, PyTuple_GET_ITEM(loads, i), i)) return false;
    if (!fleet_begin_sequences(fleet)) return false;
    for (int i = 0; i < fleet->places_count; i++)
        if (!read_place(fleet, PyTuple_GET_ITEM(loads, i), frozen, owed, i)) return false;
    return fleet_begin_round(fleet);
}
