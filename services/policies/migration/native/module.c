/* What Python calls: the moves of a greedy round. */

#include <math.h>

#include "fleet.h"
#include "words.h"

static PyTypeObject *planned_move;
static PyObject *reasons[REASONS];

static PyObject *move_of(const Fleet *fleet, const Move *move) {
    const Sequence *sequence = &fleet->sequences[move->sequence];
    PyObject *gain = PyFloat_FromDouble(move->gain_seconds);
    PyObject *made = gain ? planned_move->tp_alloc(planned_move, 0) : NULL;
    const bool whole = made && word_set(made, its_request, sequence->request) &&
                       word_set(made, its_adapter, fleet->adapters.names[sequence->adapter]) &&
                       word_set(made, its_source, fleet->places[move->source].id) &&
                       word_set(made, its_target, fleet->places[move->target].id) &&
                       word_set(made, its_reason, reasons[move->reason]) &&
                       word_set(made, its_gain_seconds, gain);
    Py_XDECREF(gain);
    if (!whole) Py_CLEAR(made);
    return made;
}

static PyObject *answer(const Fleet *fleet) {
    PyObject *moves = PyList_New(fleet->moves_count);
    for (Py_ssize_t i = 0; moves && i < fleet->moves_count; i++) {
        PyObject *move = move_of(fleet, &fleet->moves[i]);
        if (move) PyList_SET_ITEM(moves, i, move);
        else Py_CLEAR(moves);
    }
    return moves ? Py_BuildValue("Ndd", moves, fleet->makespan_ms, fleet->imbalance) : NULL;
}

static PyObject *played(Fleet *fleet, PyObject *loads, PyObject *frozen, PyObject *owed) {
    if (!fleet_read(fleet, loads, frozen, owed)) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    left_by_some(fleet);
    make_room(fleet);
    balance(fleet);
    board_measure(fleet);
    spread(fleet);
    return fleet->failed ? NULL : answer(fleet);
}

static PyObject *play(PyObject *module, PyObject *arguments) {
    PyObject *given, *frozen, *owed, *most_moves;
    Fleet fleet = {0};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!O!dO!", &given, &PyFrozenSet_Type, &frozen, &PyDict_Type,
                          &owed, &fleet.weight, &PyLong_Type, &most_moves))
        return NULL;
    fleet.most_moves = PyNumber_AsSsize_t(most_moves, NULL); /* too large a number: the largest */
    fleet.owes = PyDict_GET_SIZE(owed) > 0;
    if (fleet.owes && !isfinite(fleet.weight)) Py_RETURN_NONE;
    PyObject *loads = PySequence_Tuple(given);
    if (!loads) return NULL;
    PyObject *answered = played(&fleet, loads, PySet_GET_SIZE(frozen) ? frozen : NULL,
                                fleet.owes ? owed : NULL);
    fleet_end(&fleet);
    Py_DECREF(loads);
    return answered;
}

static PyMethodDef METHODS[] = {
    {"play", play, METH_VARARGS,
     "play(loads, frozen, owed, weight, most_moves): moves, makespan in milliseconds and imbalance\n"
     "as they were before any left a crowd; None if it is not for us, but for the reference."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "lorikeet_migration", NULL, -1, METHODS, NULL, NULL, NULL, NULL};

static bool know_classes(PyObject *loads) {
    static const char *const USED[] = {"SequenceLoad", "WorkerLoad", "SequenceSums", "StepTimes",
                                       "PlannedMove"};
    for (size_t i = 0; i < sizeof USED / sizeof *USED; i++) {
        PyObject *class = PyObject_GetAttrString(loads, USED[i]);
        if (!class) return false;
        words_know(class);
        Py_DECREF(class);
    }
    return true;
}

static bool find_classes(void) {
    static const char *const NAMES_OF_REASONS[REASONS] = {"BALANCE", "MEMORY", "DRAIN"};
    PyObject *loads = PyImport_ImportModule("services.policies.migration.loads");
    if (!loads) return false;
    planned_move = (PyTypeObject *)PyObject_GetAttrString(loads, "PlannedMove");
    PyObject *reason = planned_move ? PyObject_GetAttrString(loads, "Reason") : NULL;
    for (int i = 0; reason && i < REASONS; i++)
        reasons[i] = PyObject_GetAttrString(reason, NAMES_OF_REASONS[i]);
    const bool known = reason && !PyErr_Occurred() && know_classes(loads);
    Py_XDECREF(reason);
    Py_DECREF(loads);
    return known;
}

PyMODINIT_FUNC PyInit_lorikeet_migration(void) {
    return words_begin() && find_classes() ? PyModule_Create(&MODULE) : NULL;
}
