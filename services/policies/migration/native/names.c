#include "names.h"

bool names_begin(Names *names, size_t most) {
    size_t size = 8;
    while (size < 2 * most) size *= 2;
    names->names = PyMem_Malloc((most + 1) * sizeof *names->names);
    names->hashes = PyMem_Malloc((most + 1) * sizeof *names->hashes);
    names->slots = PyMem_Calloc(size, sizeof *names->slots);
    names->mask = size - 1;
    names->count = 0;
    if (names->names && names->hashes && names->slots) return true;
    PyErr_NoMemory();
    return false;
}

void names_end(Names *names) {
    for (int number = 0; number < names->count; number++) Py_DECREF(names->names[number]);
    PyMem_Free(names->names);
    PyMem_Free(names->hashes);
    PyMem_Free(names->slots);
}

static Py_hash_t hash_of(PyObject *name) {
    const bool known = PyUnicode_CheckExact(name) && ((PyASCIIObject *)name)->hash != -1;
    return known ? ((PyASCIIObject *)name)->hash : PyObject_Hash(name);
}

int names_number(Names *names, PyObject *name) {
    const Py_hash_t hash = hash_of(name);
    if (hash == -1) return -1;
    size_t slot = (size_t)hash & names->mask;
    for (; names->slots[slot]; slot = (slot + 1) & names->mask) {
        const int number = names->slots[slot] - 1;
        if (names->names[number] == name) return number;
        if (names->hashes[number] != hash) continue;
        const int equal = PyObject_RichCompareBool(names->names[number], name, Py_EQ);
        if (equal) return equal < 0 ? -1 : number;
    }
    names->names[names->count] = Py_NewRef(name);
    names->hashes[names->count] = hash;
    names->slots[slot] = ++names->count;
    return names->count - 1;
}
