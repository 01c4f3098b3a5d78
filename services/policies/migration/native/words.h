/* The names of attributes, as Python's strings. */

#ifndef WORDS
#define WORDS

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#define EVERY_WORD(X)                                                                             \
    X(id) X(base) X(sequences) X(most_sequences) X(total_tokens) X(free_tokens) X(resident)       \
    X(step_times) X(load_ms) X(move_ms) X(takes) X(draining) X(most_waiting)                      \
    X(most_adapters) X(adapter_tokens) X(on_host) X(copy_ms) X(others) X(in_use) X(running)       \
    X(waiting) X(count) X(tokens) X(tokens_left) X(request) X(adapter) X(sequence) X(token)       \
    X(source) X(target) X(reason) X(gain_seconds)

#define WORD_NAME(word) its_##word,
typedef enum { EVERY_WORD(WORD_NAME) WORDS_COUNT } Word;
#undef WORD_NAME

bool words_begin(void);
/* Its objects are read where their slots are, without a search. */
void words_know(PyObject *class);
/* Has what its slots hold brought to the cache meanwhile. */
void words_fetch(PyObject *object);
/* A new reference to an attribute; NULL, with an error set, if there is none. */
PyObject *word_of(PyObject *object, Word word);
/* Also where the class says that its objects never change. */
bool word_set(PyObject *object, Word word, PyObject *value);

#endif
