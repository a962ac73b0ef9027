/* Boxes of a frame: choosing candidates, suppressing doubles, mapping to the frame. See edge/boxes.py and
   edge/heads/candidates.py, which say what each does and do the same where this is not built. A box is four float32. */

#include "buffers.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    float score;
    int64_t index;
} Ranked;

static int by_score(const void *first, const void *second) {
    const Ranked *a = first, *b = second;
    if (a->score != b->score) return a->score < b->score ? 1 : -1;
    return a->index < b->index ? -1 : 1;
}

static float area_of(const float *box) {
    const float width = box[2] - box[0], height = box[3] - box[1];
    return MOST(width, 0.0f) * MOST(height, 0.0f);
}

/* Whether two boxes overlap by more than the threshold, in single precision, as NumPy and the kernel for GPUs say. */
static int overlaps(const float *a, const float *b, float area_a, float area_b, float threshold) {
    const float width = LEAST(a[2], b[2]) - MOST(a[0], b[0]), height = LEAST(a[3], b[3]) - MOST(a[1], b[1]);
    const float shared = MOST(width, 0.0f) * MOST(height, 0.0f);
    const float both = area_a + area_b - shared;
    return both > 0 && shared / both > threshold;
}

/* Greedy suppression of `count` boxes; writes the indices of those kept, the best first, and gives their number.
   Returns -1 without memory. */
static Py_ssize_t suppress(const float *boxes, const float *score, Py_ssize_t count, float threshold, int64_t *kept) {
    Ranked *order = malloc((size_t)(count + 1) * sizeof *order);
    float *areas = malloc((size_t)(count + 1) * sizeof *areas);
    Py_ssize_t ranked = 0, num = 0;
    if (!order || !areas) num = -1;
    for (Py_ssize_t i = 0; num == 0 && i < count; i++)
        if (score[i] == score[i]) order[ranked++] = (Ranked){score[i], i};
    qsort(order, (size_t)ranked, sizeof *order, by_score);
    for (Py_ssize_t i = 0; i < ranked; i++) {
        const float *box = boxes + 4 * order[i].index;
        const float area = area_of(box);
        Py_ssize_t other = 0;
        while (other < num && !overlaps(boxes + 4 * kept[other], box, areas[other], area, threshold)) other++;
        if (other < num) continue;
        areas[num] = area;
        kept[num++] = order[i].index;
    }
    free(order);
    free(areas);
    return num;
}

/* nms(xyxy (N, 4), score (N,), threshold, kept (N,) int64) -> number kept */
static PyObject *nms(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Py_buffer views[3];
    if (num_args != 4) return PyErr_Format(PyExc_TypeError, "nms takes 4 arguments, not %zd", num_args);
    const float threshold = (float)PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred() || !take(args[1], &views[0], 'f', -1, 0)) return NULL;
    const Py_ssize_t count = views[0].len / 4;
    if (!take(args[0], &views[1], 'f', 4 * count, 0)) return release(views, 1), NULL;
    if (!take(args[3], &views[2], 'q', count, 1)) return release(views, 2), NULL;
    const Py_ssize_t num = suppress(views[1].buf, views[0].buf, count, threshold, views[2].buf);
    release(views, 3);
    return num < 0 ? PyErr_NoMemory() : PyLong_FromSsize_t(num);
}

/* Move classes apart by more than the extent of all boxes, so that only boxes of one class compete; as NumPy rounds. */
static void move_apart(const float *boxes, const int32_t *class_id, Py_ssize_t count, float *moved) {
    float least = boxes[0], most = boxes[0], real_least = NAN, real_most = NAN;
    for (Py_ssize_t i = 0; i < 4 * count; i++) {
        least = LEAST(least, boxes[i]);
        most = MOST(most, boxes[i]);
        real_least = fminf(real_least, boxes[i]);
        real_most = fmaxf(real_most, boxes[i]);
    }
    float extent = most - least;
    if (extent != extent) extent = real_most - real_least;
    const double step = (double)extent + 1.0;
    for (Py_ssize_t i = 0; i < count; i++) {
        const float offset = (float)((double)class_id[i] * step);
        for (int side = 0; side < 4; side++) moved[4 * i + side] = boxes[4 * i + side] + offset;
    }
}

/* As `suppress`, but classes do not compete. */
static Py_ssize_t suppress_per_class(const float *boxes, const float *score, const int32_t *class_id, Py_ssize_t count,
                                     float threshold, int64_t *kept) {
    if (count == 0) return 0;
    float *moved = malloc((size_t)count * 4 * sizeof *moved);
    if (!moved) return -1;
    move_apart(boxes, class_id, count, moved);
    const Py_ssize_t num = suppress(moved, score, count, threshold, kept);
    free(moved);
    return num;
}

/* nms_per_class(xyxy (N, 4), score (N,), class_id (N,) int32, threshold, kept (N,) int64) -> number kept */
static PyObject *nms_per_class(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Py_buffer views[4];
    if (num_args != 5) return PyErr_Format(PyExc_TypeError, "nms_per_class takes 5 arguments, not %zd", num_args);
    const float threshold = (float)PyFloat_AsDouble(args[3]);
    if (PyErr_Occurred() || !take(args[1], &views[0], 'f', -1, 0)) return NULL;
    const Py_ssize_t count = views[0].len / 4;
    if (!take(args[0], &views[1], 'f', 4 * count, 0)) return release(views, 1), NULL;
    if (!take(args[2], &views[2], 'i', count, 0)) return release(views, 2), NULL;
    if (!take(args[4], &views[3], 'q', count, 1)) return release(views, 3), NULL;
    const Py_ssize_t num =
        suppress_per_class(views[1].buf, views[0].buf, views[2].buf, count, threshold, views[3].buf);
    release(views, 4);
    return num < 0 ? PyErr_NoMemory() : PyLong_FromSsize_t(num);
}

typedef struct {
    float pad[2], scale[2], limit[2];
} Fit;

/* How the frame lies in the model's input: (pad_x, pad_y, scale_x, scale_y, frame_width, frame_height). */
static int read_fit(PyObject *given, Fit *fit) {
    if (!PyTuple_Check(given) || PyTuple_GET_SIZE(given) != 6)
        return PyErr_SetString(PyExc_ValueError, "expected a letterbox as six numbers"), 0;
    float *numbers = fit->pad;
    for (int i = 0; i < 6; i++) numbers[i] = (float)PyFloat_AsDouble(PyTuple_GET_ITEM(given, i));
    return !PyErr_Occurred();
}

typedef struct {
    float *box, *score;
    int32_t *class_id;
    int64_t *index;
} Objects;

/* Suppress doubles unless `iou` is negative, and map to the frame; boxes that are empty there are dropped. Returns their
   number, -1 without memory, -2 where a score is above `limit` or no number. */
static Py_ssize_t place_objects(Objects given, Py_ssize_t count, const Fit *fit, float iou, double limit, Objects out) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (!(given.score[i] <= limit)) return -2;
    Py_ssize_t num = count, real = 0;
    if (iou >= 0) {
        num = suppress_per_class(given.box, given.score, given.class_id, count, iou, out.index);
    } else {
        for (Py_ssize_t i = 0; i < count; i++) out.index[i] = i;
    }
    for (Py_ssize_t i = 0; i < num; i++) {
        const int64_t from = out.index[i];
        float *box = out.box + 4 * real;
        for (int side = 0; side < 4; side++) {
            const float placed = (given.box[4 * from + side] - fit->pad[side % 2]) / fit->scale[side % 2];
            const float inside = MOST(placed, 0.0f);
            box[side] = LEAST(inside, fit->limit[side % 2]);
        }
        if (!(box[2] > box[0] && box[3] > box[1])) continue;
        out.score[real] = LEAST(given.score[from], 1.0f);
        out.class_id[real] = given.class_id[from];
        out.index[real++] = from;
    }
    return num < 0 ? num : real;
}

/* The four arrays to write to: (K, 4) float32, (K,) float32, (K,) int32, (K,) int64. */
static int take_objects(PyObject *const *args, Py_buffer *views, Py_ssize_t count, Objects *out) {
    if (!take(args[0], &views[0], 'f', 4 * count, 1)) return 0;
    if (!take(args[1], &views[1], 'f', count, 1)) return release(views, 1), 0;
    if (!take(args[2], &views[2], 'i', count, 1)) return release(views, 2), 0;
    if (!take(args[3], &views[3], 'q', count, 1)) return release(views, 3), 0;
    *out = (Objects){views[0].buf, views[1].buf, views[2].buf, views[3].buf};
    return 1;
}

/* place(xyxy (K, 4), score (K,), class_id (K,), letterbox, iou, limit, and the four arrays to write to) -> number, or -2
   where a score is above the limit */
static PyObject *place(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Py_buffer views[7];
    Fit fit;
    Objects out;
    if (num_args != 10) return PyErr_Format(PyExc_TypeError, "place takes 10 arguments, not %zd", num_args);
    const double iou = PyFloat_AsDouble(args[4]), limit = PyFloat_AsDouble(args[5]);
    if (PyErr_Occurred() || !read_fit(args[3], &fit) || !take(args[1], &views[0], 'f', -1, 0)) return NULL;
    const Py_ssize_t count = views[0].len / 4;
    if (!take(args[0], &views[1], 'f', 4 * count, 0)) return release(views, 1), NULL;
    if (!take(args[2], &views[2], 'i', count, 0)) return release(views, 2), NULL;
    if (!take_objects(args + 6, views + 3, count, &out)) return release(views, 3), NULL;
    const Objects given = {views[1].buf, views[0].buf, views[2].buf, NULL};
    const Py_ssize_t num = place_objects(given, count, &fit, (float)iou, limit, out);
    release(views, 7);
    return num == -1 ? PyErr_NoMemory() : PyLong_FromSsize_t(num);
}

/* Gather the listed objects from a score on into `found`, whose arrays hold `count`; gives their number. */
static Py_ssize_t gather(const float *boxes, const float *scores, const Py_buffer *labels, Py_ssize_t count,
                         float threshold, int32_t first_class, Objects found) {
    const char kind = kind_of(labels);
    Py_ssize_t num = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!(scores[i] >= threshold)) continue;
        for (int side = 0; side < 4; side++) found.box[4 * num + side] = boxes[4 * i + side];
        found.score[num] = scores[i];
        const int32_t label = kind == 'i'   ? ((const int32_t *)labels->buf)[i]
                              : kind == 'q' ? (int32_t)((const int64_t *)labels->buf)[i]
                                            : (int32_t)rintf(((const float *)labels->buf)[i]);
        found.class_id[num++] = (int32_t)((uint32_t)label - (uint32_t)first_class);
    }
    return num;
}

/* Of objects that a graph lists: those from a score on, as `place` gives them. See `listed` below. */
static Py_ssize_t place_listed(const Py_buffer *views, Py_ssize_t count, float threshold, int32_t first_class,
                               const Fit *fit, float iou, double limit, Objects out) {
    char *memory = malloc((size_t)(count + 1) * 6 * 4);
    if (!memory) return -1;
    float *box = (float *)memory;
    const Objects found = {box, box + 4 * count, (int32_t *)(box + 5 * count), NULL};
    Py_ssize_t num = gather(views[1].buf, views[0].buf, &views[2], count, threshold, first_class, found);
    num = place_objects(found, num, fit, iou, limit, out);
    free(memory);
    return num;
}

/* listed(boxes (K, 4), scores (K,), labels (K,) int32, int64 or float32, threshold, first class, letterbox, iou, limit, and
   the four arrays to write to, of which the last is no result) -> number, or -2 where a score is above the limit */
static PyObject *listed(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Py_buffer views[7];
    Fit fit;
    Objects out;
    if (num_args != 12) return PyErr_Format(PyExc_TypeError, "listed takes 12 arguments, not %zd", num_args);
    const float threshold = (float)PyFloat_AsDouble(args[3]);
    const long first_class = PyLong_AsLong(args[4]);
    const double iou = PyFloat_AsDouble(args[6]), limit = PyFloat_AsDouble(args[7]);
    if (PyErr_Occurred() || !read_fit(args[5], &fit) || !take(args[1], &views[0], 'f', -1, 0)) return NULL;
    const Py_ssize_t count = views[0].len / 4;
    if (!take(args[0], &views[1], 'f', 4 * count, 0)) return release(views, 1), NULL;
    if (PyObject_GetBuffer(args[2], &views[2], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) return release(views, 2), NULL;
    const char kind = kind_of(&views[2]);
    if ((kind != 'i' && kind != 'q' && kind != 'f') || views[2].len != count * views[2].itemsize) {
        PyErr_Format(PyExc_ValueError, "expected %zd labels of kind i, q or f, found kind %c", count, kind);
        return release(views, 3), NULL;
    }
    if (!take_objects(args + 8, views + 3, count, &out)) return release(views, 3), NULL;
    const Py_ssize_t num = place_listed(views, count, threshold, (int32_t)first_class, &fit, (float)iou, limit, out);
    release(views, 7);
    return num == -1 ? PyErr_NoMemory() : PyLong_FromSsize_t(num);
}

/* Values in two dimensions that may lie apart, rows of anchors and columns of classes. */
typedef struct {
    const char *at;
    Py_ssize_t anchors, classes, per_anchor, per_class;
} Table;

static inline float value_of(const Table *table, Py_ssize_t anchor, Py_ssize_t class_id) {
    return *(const float *)(table->at + anchor * table->per_anchor + class_id * table->per_class);
}

/* The best class of an anchor times its weight, the first of several, or what is no number, as np.argmax says. */
static float best_of(const Table *table, Py_ssize_t anchor, float weight, int32_t *class_id) {
    float best = value_of(table, anchor, 0) * weight;
    *class_id = 0;
    for (Py_ssize_t c = 1; c < table->classes && best == best; c++) {
        const float value = value_of(table, anchor, c) * weight;
        if (value > best || value != value) best = value, *class_id = (int32_t)c;
    }
    return best;
}

#define BLOCK 256

/* The best classes of up to BLOCK anchors that lie one after the other: class by class, as they lie in memory. */
static void best_of_block(const Table *table, Py_ssize_t begin, Py_ssize_t count, float *best, int32_t *class_id) {
    for (Py_ssize_t i = 0; i < count; i++) best[i] = value_of(table, begin + i, 0), class_id[i] = 0;
    for (Py_ssize_t c = 1; c < table->classes; c++) {
        const float *row = (const float *)(table->at + begin * table->per_anchor + c * table->per_class);
        for (Py_ssize_t i = 0; i < count; i++) {
            const int is_better = (row[i] > best[i]) | ((row[i] != row[i]) & (best[i] == best[i]));
            class_id[i] = is_better ? (int32_t)c : class_id[i];
            best[i] = is_better ? row[i] : best[i];
        }
    }
}

typedef struct {
    int64_t *anchor;
    int32_t *class_id;
    float *score;
    Py_ssize_t count, room;
} Found;

/* Note an anchor from a score on; 0 where there is no room. */
static inline int note(Found *found, Py_ssize_t anchor, int32_t class_id, float score, float threshold) {
    if (!(score >= threshold)) return 1;
    if (found->count == found->room) return 0;
    found->anchor[found->count] = anchor;
    found->class_id[found->count] = class_id;
    found->score[found->count++] = score;
    return 1;
}

static int find_in_blocks(const Table *table, float threshold, Found *found) {
    float best[BLOCK];
    int32_t class_id[BLOCK];
    for (Py_ssize_t begin = 0; begin < table->anchors; begin += BLOCK) {
        const Py_ssize_t rest = table->anchors - begin, count = rest < BLOCK ? rest : BLOCK;
        best_of_block(table, begin, count, best, class_id);
        for (Py_ssize_t i = 0; i < count; i++)
            if (!note(found, begin + i, class_id[i], best[i], threshold)) return 0;
    }
    return 1;
}

static int find_one_by_one(const Table *table, const char *weights, Py_ssize_t step, float threshold, Found *found) {
    for (Py_ssize_t anchor = 0; anchor < table->anchors; anchor++) {
        const float weight = weights ? *(const float *)(weights + anchor * step) : 1.0f;
        int32_t class_id;
        if (weights && !(weight >= threshold)) continue;
        const float best = best_of(table, anchor, weight, &class_id);
        if (!note(found, anchor, class_id, best, threshold)) return 0;
    }
    return 1;
}

/* Take float32 numbers in so many dimensions, which may lie apart. */
static int take_apart(PyObject *array, Py_buffer *view, int dimensions) {
    if (PyObject_GetBuffer(array, view, PyBUF_STRIDES | PyBUF_FORMAT) < 0) return 0;
    if (kind_of(view) == 'f' && view->ndim == dimensions) return 1;
    PyErr_Format(PyExc_ValueError, "expected float32 in %d dimensions, found kind '%s' in %d", dimensions,
                 view->format ? view->format : "B", view->ndim);
    PyBuffer_Release(view);
    return 0;
}

/* best_class(scores (A, C), weights (A,) or None, threshold, and three arrays (M,) to write to: anchors int64, classes
   int32, scores) -> number found, or -1 where they are more than M */
static PyObject *best_class(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Py_buffer views[5];
    if (num_args != 6) return PyErr_Format(PyExc_TypeError, "best_class takes 6 arguments, not %zd", num_args);
    const float threshold = (float)PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred() || !take(args[3], &views[0], 'q', -1, 1)) return NULL;
    const Py_ssize_t room = views[0].len / 8;
    if (!take(args[4], &views[1], 'i', room, 1)) return release(views, 1), NULL;
    if (!take(args[5], &views[2], 'f', room, 1)) return release(views, 2), NULL;
    if (!take_apart(args[0], &views[3], 2)) return release(views, 3), NULL;
    const Py_buffer *scores = &views[3];
    const Table table = {scores->buf, scores->shape[0], scores->shape[1], scores->strides[0], scores->strides[1]};
    const int is_weighted = args[1] != Py_None;
    if (is_weighted && !take_apart(args[1], &views[4], 1)) return release(views, 4), NULL;
    Found found = {views[0].buf, views[1].buf, views[2].buf, 0, room};
    int is_all = 1;
    if ((is_weighted && views[4].shape[0] != table.anchors) || table.classes == 0) {
        PyErr_Format(PyExc_ValueError, "expected a weight for each of %zd anchors, and classes", table.anchors);
    } else if (is_weighted) {
        is_all = find_one_by_one(&table, views[4].buf, views[4].strides[0], threshold, &found);
    } else if (table.per_anchor == sizeof(float)) {
        is_all = find_in_blocks(&table, threshold, &found);
    } else {
        is_all = find_one_by_one(&table, NULL, 0, threshold, &found);
    }
    release(views, 4 + is_weighted);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(is_all ? found.count : -1);
}

#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef functions[] = {FUNCTION(nms),    FUNCTION(nms_per_class), FUNCTION(place),
                                  FUNCTION(listed), FUNCTION(best_class),    {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_boxes", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__boxes(void) {
    return PyModule_Create(&module);
}
