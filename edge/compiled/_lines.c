/* The objects of a result as JSON, numbers as Python writes them. See edge/result_json.py. */

#include "buffers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *at;
    size_t used, room;
} Text;

/* 0 without memory. */
static int add(Text *text, const char *more, size_t length) {
    if (text->used + length > text->room) {
        const size_t room = 2 * (text->used + length) + 256;
        char *at = realloc(text->at, room);
        if (!at) return 0;
        text->at = at, text->room = room;
    }
    memcpy(text->at + text->used, more, length);
    text->used += length;
    return 1;
}

static int add_text(Text *text, const char *more) {
    return add(text, more, strlen(more));
}

/* As "%.3f" of Python, whatever the machine's language is. */
static int add_number(Text *text, double value, int digits) {
    char *written = PyOS_double_to_string(value, 'f', digits, 0, NULL);
    const int is_added = written && add_text(text, written);
    PyMem_Free(written);
    return is_added;
}

static int add_name(Text *text, PyObject *names, int32_t class_id) {
    char number[32];
    if (class_id < 0 || class_id >= PyList_GET_SIZE(names)) {
        snprintf(number, sizeof number, "\"class %ld\"", (long)class_id);
        return add_text(text, number);
    }
    Py_ssize_t length;
    const char *name = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(names, class_id), &length);
    return name && add(text, name, (size_t)length);
}

static int add_object(Text *text, const int64_t *id, PyObject *names, int32_t class_id, float score, const float *box) {
    char number[32] = "null";
    if (id) snprintf(number, sizeof number, "%lld", (long long)*id);
    int is_added = add_text(text, text->used ? ",{\"track_id\":" : "{\"track_id\":") && add_text(text, number) &&
                   add_text(text, ",\"class\":") && add_name(text, names, class_id) && add_text(text, ",\"score\":") &&
                   add_number(text, score, 3);
    for (int side = 0; is_added && side < 4; side++)
        is_added = add_text(text, side ? "," : ",\"xyxy\":[") && add_number(text, box[side], 1);
    return is_added && add_text(text, "]}");
}

/* objects(ids (N,) int64 or None, names of classes as JSON, class_id (N,) int32, score (N,), xyxy (N, 4)) -> text; what
   holds no numbers is left out */
static PyObject *objects(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Py_buffer views[4];
    if (num_args != 5) return PyErr_Format(PyExc_TypeError, "objects takes 5 arguments, not %zd", num_args);
    if (!PyList_Check(args[1])) return PyErr_Format(PyExc_TypeError, "expected names as a list");
    const int has_ids = args[0] != Py_None;
    if (!take(args[3], &views[0], 'f', -1, 0)) return NULL;
    const Py_ssize_t count = views[0].len / 4;
    if (!take(args[4], &views[1], 'f', 4 * count, 0)) return release(views, 1), NULL;
    if (!take(args[2], &views[2], 'i', count, 0)) return release(views, 2), NULL;
    if (has_ids && !take(args[0], &views[3], 'q', count, 0)) return release(views, 3), NULL;
    const float *score = views[0].buf, *box = views[1].buf;
    const int32_t *class_id = views[2].buf;
    const int64_t *ids = has_ids ? views[3].buf : NULL;
    Text text = {NULL, 0, 0};
    int is_added = 1;
    for (Py_ssize_t i = 0; is_added && i < count; i++, box += 4) {
        if (!isfinite((double)score[i] + box[0] + box[1] + box[2] + box[3])) continue;
        is_added = add_object(&text, ids ? ids + i : NULL, args[1], class_id[i], score[i], box);
    }
    release(views, 3 + has_ids);
    PyObject *made = is_added ? PyUnicode_FromStringAndSize(text.at, (Py_ssize_t)text.used) : NULL;
    free(text.at);
    return made || PyErr_Occurred() ? made : PyErr_NoMemory();
}

static PyMethodDef functions[] = {{"objects", (PyCFunction)(void (*)(void))objects, METH_FASTCALL, NULL},
                                  {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_lines", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__lines(void) {
    return PyModule_Create(&module);
}
