/* Arrays of NumPy as memory: what a function is given is checked for kind and size before a pointer is used. */
#ifndef EDGE_BUFFERS_H
#define EDGE_BUFFERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* NumPy's indices are int64 there; elsewhere nothing is built */
_Static_assert(sizeof(Py_ssize_t) == 8, "a machine of 64 bits");

/* as np.minimum and np.maximum: what is no number stays so */
#define LEAST(a, b) ((a) < (b) || (a) != (a) ? (a) : (b))
#define MOST(a, b) ((a) > (b) || (a) != (a) ? (a) : (b))

/* 'f' float32, 'd' float64, 'i' int32, 'q' int64, '?' bool, 0 another kind */
static inline char kind_of(const Py_buffer *view) {
    const char letter = view->format ? view->format[0] : 'B';
    if (letter == 'l') return view->itemsize == 8 ? 'q' : 'i';
    return letter;
}

/* Take an array that lies in one piece; of `length` numbers unless that is negative. Returns 0 with an error set. */
static inline int take(PyObject *array, Py_buffer *view, char kind, Py_ssize_t length, int is_written) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (is_written ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array, view, flags) < 0) return 0;
    if (kind_of(view) != kind || (length >= 0 && view->len != length * view->itemsize)) {
        PyErr_Format(PyExc_ValueError, "expected %zd numbers of kind '%c', found %zd of kind '%s'", length, kind,
                     view->len / view->itemsize, view->format ? view->format : "B");
        PyBuffer_Release(view);
        return 0;
    }
    return 1;
}

static inline void release(Py_buffer *views, int count) {
    while (count--) PyBuffer_Release(&views[count]);
}

#endif
