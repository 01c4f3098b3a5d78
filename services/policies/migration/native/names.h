/* Numbers for Python's objects, equal ones the same, in the order they came. */

#ifndef NAMES
#define NAMES

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

typedef struct {
    PyObject **names;
    Py_hash_t *hashes;
    int *slots; /* a number and 1 more; 0: free */
    size_t mask;
    int count;
} Names;

/* For so many at most. False, with an error set, if there is no memory. */
bool names_begin(Names *names, size_t most);
void names_end(Names *names);
/* -1, with an error set, if it has no hash or cannot be compared. */
int names_number(Names *names, PyObject *name);

#endif
