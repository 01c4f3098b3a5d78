#include "words.h"

#include <structmember.h>

enum { CLASSES = 2, KNOWN = 5 }; /* that share a word, at most; that are known */

static PyObject *words[WORDS_COUNT];
static PyTypeObject *known[KNOWN];
static int known_count;
static struct {
    PyTypeObject *type;
    Py_ssize_t offset;
} slots[WORDS_COUNT][CLASSES];

#define WORD_TEXT(word) #word,
static const char *const TEXTS[WORDS_COUNT] = {EVERY_WORD(WORD_TEXT)};
#undef WORD_TEXT

bool words_begin(void) {
    for (int word = 0; word < WORDS_COUNT; word++) {
        words[word] = PyUnicode_InternFromString(TEXTS[word]);
        if (!words[word]) return false;
    }
    return true;
}

void words_know(PyObject *class) {
    known[known_count++] = (PyTypeObject *)Py_NewRef(class);
    for (int word = 0; word < WORDS_COUNT; word++) {
        PyObject *found = PyObject_GetAttr(class, words[word]);
        if (!found) PyErr_Clear();
        if (found && Py_IS_TYPE(found, &PyMemberDescr_Type)) {
            const PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
            for (int i = 0; i < CLASSES && member->type == T_OBJECT_EX; i++) {
                if (slots[word][i].type) continue;
                slots[word][i].type = (PyTypeObject *)Py_NewRef(class);
                slots[word][i].offset = member->offset;
                break;
            }
        }
        Py_XDECREF(found);
    }
}

/* Slots follow each other, and nothing else is there. */
void words_fetch(PyObject *object) {
    for (int i = 0; i < known_count; i++) {
        if (!Py_IS_TYPE(object, known[i])) continue;
        const Py_ssize_t end = known[i]->tp_basicsize;
        for (Py_ssize_t at = sizeof *object; at < end; at += sizeof object)
            __builtin_prefetch(*(PyObject **)((char *)object + at));
    }
}

static PyObject **slot_of(PyObject *object, Word word) {
    for (int i = 0; i < CLASSES; i++)
        if (Py_IS_TYPE(object, slots[word][i].type))
            return (PyObject **)((char *)object + slots[word][i].offset);
    return NULL;
}

PyObject *word_of(PyObject *object, Word word) {
    PyObject **slot = slot_of(object, word);
    return slot && *slot ? Py_NewRef(*slot) : PyObject_GetAttr(object, words[word]);
}

bool word_set(PyObject *object, Word word, PyObject *value) {
    PyObject **slot = slot_of(object, word);
    if (!slot || *slot) return PyObject_GenericSetAttr(object, words[word], value) == 0;
    *slot = Py_NewRef(value);
    return true;
}
