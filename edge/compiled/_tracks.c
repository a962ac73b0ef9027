/* One frame of a tracker: see edge/trackers, whose NumPy does the same, bit for bit, where this is not built.
   State of T tracks is (5, T, 4) float64: value, speed, and the variances value, value-speed, speed of cx cy w h. */

#include "buffers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_SIZE_PX 1.0
#define LEAST_PAIRS 3
#define SIGMA_PER_MAD 1.4826
#define SIGNIFICANT_SIGMA 2.0
#define LEAST_LEFT 0.05

enum { VALUE, SPEED, VAR, COV, SPEED_VAR, PARTS };

/* edge.trackers.tracks.ROW */
typedef struct {
    int64_t track_id;
    int32_t class_id, hits, detection;
    char is_confirmed;
    double score, born_s, seen_s, box[4], past[8];
} Row;

typedef struct {
    int64_t count;
    double *part[PARTS];
} State;

/* The numbers of one track. */
typedef struct {
    double part[PARTS][4];
} One;

static State state_of(const Py_buffer *view, int64_t count) {
    State state = {count, {0}};
    for (int part = 0; part < PARTS; part++) state.part[part] = (double *)view->buf + part * count * 4;
    return state;
}

static One one_of(const State *state, int64_t track) {
    One one;
    for (int part = 0; part < PARTS; part++) memcpy(one.part[part], state->part[part] + 4 * track, sizeof one.part[0]);
    return one;
}

static void put(const State *state, int64_t track, const One *one) {
    for (int part = 0; part < PARTS; part++) memcpy(state->part[part] + 4 * track, one->part[part], sizeof one->part[0]);
}

/* kalman.predict; the noises are squared. */
static void predict(One *one, double dt_s, double position_noise, double speed_noise) {
    double (*part)[4] = one->part;
    const double size[2] = {part[VALUE][2], part[VALUE][3]};
    for (int i = 0; i < 4; i++) {
        const double growth = size[i & 1] * size[i & 1] * dt_s, drift = dt_s * part[SPEED_VAR][i];
        const double spread = (2 * part[COV][i] + drift) * dt_s + position_noise * growth;
        part[VALUE][i] += dt_s * part[SPEED][i];
        part[VAR][i] += spread;
        part[COV][i] += drift;
        part[SPEED_VAR][i] += growth * speed_noise;
    }
    for (int i = 2; i < 4; i++) part[VALUE][i] = MOST(part[VALUE][i], LEAST_SIZE_PX);
}

/* kalman.update */
static void see(One *one, const double *box, double noise) {
    double (*part)[4] = one->part;
    const double size[2] = {part[VALUE][2], part[VALUE][3]};
    for (int i = 0; i < 4; i++) {
        const double deviation = size[i & 1] * noise, var = part[VAR][i], cov = part[COV][i];
        const double total = deviation * deviation + var;
        const double gain = var / total, speed_gain = cov / total, residual = box[i] - part[VALUE][i], rest = 1 - gain;
        part[VALUE][i] += gain * residual;
        part[SPEED][i] += speed_gain * residual;
        part[VAR][i] = rest * var;
        part[COV][i] = rest * cov;
        part[SPEED_VAR][i] -= speed_gain * cov;
    }
}

static void corners_of(const double *box, double share, double *corners) {
    for (int i = 0; i < 2; i++) {
        const double half = box[2 + i] * share;
        corners[i] = box[i] - half;
        corners[2 + i] = box[i] + half;
    }
}

/* association.overlap */
static double overlap(const double *a, const double *b) {
    const double wide = LEAST(a[2], b[2]) - MOST(a[0], b[0]), high = LEAST(a[3], b[3]) - MOST(a[1], b[1]);
    const double both = MOST(wide, 0.0) * MOST(high, 0.0);
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

/* Take arrays of these kinds ('T' rows, or as `take`; a capital is written to) and lengths. */
static int take_all(PyObject *const *args, int count, const char *kinds, const int64_t *lengths, Py_buffer *views) {
    for (int i = 0; i < count; i++) {
        const int is_written = kinds[i] >= 'A' && kinds[i] <= 'Z';
        const char kind = kinds[i] == 'T' || kinds[i] == '?' ? kinds[i] : (char)(kinds[i] | 32);
        if (take(args[i], &views[i], kind, lengths[i], is_written)) continue;
        release(views, i);
        return 0;
    }
    return 1;
}

static int64_t num_rows(PyObject *rows) {
    Py_buffer view;
    if (PyObject_GetBuffer(rows, &view, PyBUF_C_CONTIGUOUS) < 0) return -1;
    const int64_t count = view.len / (int64_t)sizeof(Row);
    const int is_rows = view.itemsize == (Py_ssize_t)sizeof(Row);
    PyBuffer_Release(&view);
    if (!is_rows) return PyErr_SetString(PyExc_ValueError, "expected rows of tracks"), -1;
    return count;
}

static int read_numbers(PyObject *given, double *numbers, int count) {
    if (!PyTuple_Check(given) || PyTuple_GET_SIZE(given) != count)
        return PyErr_Format(PyExc_ValueError, "expected %d numbers", count), 0;
    for (int i = 0; i < count; i++) numbers[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(given, i));
    return !PyErr_Occurred();
}

/* usable(xyxy (N, 4) float32, score (N,) float32, class_id (N,) int32, least score, and to write to: corners (N, 4) and
   centres (N, 4) float64, score (N,) float64, class_id (N,) int32, index (N,) int64) -> number of usable boxes */
static PyObject *usable(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    if (num_args != 9) return PyErr_Format(PyExc_TypeError, "usable takes 9 arguments, not %zd", num_args);
    const float least = (float)PyFloat_AsDouble(args[3]);
    const Py_ssize_t count = PyObject_Length(args[1]);
    Py_buffer in[3], out[5];
    if (PyErr_Occurred()) return NULL;
    if (!take_all(args, 3, "ffi", (int64_t[]){4 * count, count, count}, in)) return NULL;
    if (!take_all(args + 4, 5, "DDDIQ", (int64_t[]){4 * count, 4 * count, count, count, count}, out))
        return release(in, 3), NULL;
    const float *boxes = in[0].buf, *score = in[1].buf;
    double *corners = out[0].buf, *centres = out[1].buf, *scores = out[2].buf;
    Py_ssize_t num = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        const float *box = boxes + 4 * i;
        if (!(box[2] > box[0] && box[3] > box[1] && score[i] >= least)) continue;
        if (!(isfinite(box[0]) && isfinite(box[1]) && isfinite(box[2]) && isfinite(box[3]))) continue;
        for (int side = 0; side < 4; side++) corners[4 * num + side] = box[side];
        for (int axis = 0; axis < 2; axis++) {
            const double size = (double)box[2 + axis] - (double)box[axis];
            centres[4 * num + axis] = (double)box[axis] + size / 2;
            centres[4 * num + 2 + axis] = size;
        }
        scores[num] = score[i];
        ((int32_t *)out[3].buf)[num] = ((const int32_t *)in[2].buf)[i];
        ((int64_t *)out[4].buf)[num++] = i;
    }
    release(out, 5);
    release(in, 3);
    return PyLong_FromSsize_t(num);
}

/* advance(rows, state, (before_s, dt_s, position noise squared, speed noise squared)): sizes of the lost are held, all
   are predicted, none is seen yet */
static PyObject *advance(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    double number[4];
    if (num_args != 3) return PyErr_Format(PyExc_TypeError, "advance takes 3 arguments, not %zd", num_args);
    const int64_t count = num_rows(args[0]);
    Py_buffer views[2];
    if (count < 0 || !read_numbers(args[2], number, 4)) return NULL;
    if (!take_all(args, 2, "TD", (int64_t[]){count, 4 * PARTS * count}, views)) return NULL;
    Row *rows = views[0].buf;
    const State state = state_of(&views[1], count);
    for (int64_t i = 0; i < count; i++) {
        One one = one_of(&state, i);
        if (rows[i].seen_s < number[0]) one.part[SPEED][2] = one.part[SPEED][3] = 0;
        predict(&one, number[1], number[2], number[3]);
        put(&state, i, &one);
        rows[i].detection = -1;
    }
    release(views, 2);
    Py_RETURN_NONE;
}

/* meet(rows, state, centres (N, 4), class_id (N,), growth, per class or not, and to write to: row (P,) and col (P,)
   int64, overlap (P,)) -> number of pairs that meet, -1 where they are more than P */
static PyObject *meet(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    if (num_args != 9) return PyErr_Format(PyExc_TypeError, "meet takes 9 arguments, not %zd", num_args);
    const double share = 0.5 + PyFloat_AsDouble(args[4]);
    const int is_per_class = PyObject_IsTrue(args[5]);
    const int64_t count = num_rows(args[0]);
    const Py_ssize_t boxes = PyObject_Length(args[3]), room = PyObject_Length(args[8]);
    Py_buffer in[4], out[3];
    if (PyErr_Occurred()) return NULL;
    if (!take_all(args, 4, "Tddi", (int64_t[]){count, 4 * PARTS * count, 4 * boxes, boxes}, in)) return NULL;
    if (!take_all(args + 6, 3, "QQD", (int64_t[]){room, room, room}, out)) return release(in, 4), NULL;
    const Row *rows = in[0].buf;
    const double *values = in[1].buf, *centres = in[2].buf;
    const int32_t *class_id = in[3].buf;
    double *found = malloc((size_t)(boxes + 1) * 4 * sizeof *found);
    Py_ssize_t num = 0;
    for (Py_ssize_t j = 0; found && j < boxes; j++) corners_of(centres + 4 * j, share, found + 4 * j);
    for (int64_t i = 0; found && i < count && num >= 0; i++) {
        double expected[4];
        corners_of(values + 4 * i, share, expected);
        for (Py_ssize_t j = 0; j < boxes; j++) {
            const double *box = found + 4 * j;
            /* in float32, as association.meeting_pairs has it */
            if (!((float)expected[0] < (float)box[2] && (float)expected[2] > (float)box[0])) continue;
            if (!((float)expected[1] < (float)box[3] && (float)expected[3] > (float)box[1])) continue;
            if (is_per_class && rows[i].class_id != class_id[j]) continue;
            if (num == room) {
                num = -1;
                break;
            }
            ((int64_t *)out[0].buf)[num] = i;
            ((int64_t *)out[1].buf)[num] = j;
            ((double *)out[2].buf)[num++] = overlap(expected, box);
        }
    }
    release(out, 3);
    release(in, 4);
    if (!found) return PyErr_NoMemory();
    free(found);
    return PyLong_FromSsize_t(num);
}

/* agree(rows, row (P,), col (P,), overlap (P,), number of boxes, best (P,) bool to write to) -> sum of the overlaps of the
   pairs of confirmed tracks that are the best of both */
static PyObject *agree(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    if (num_args != 6) return PyErr_Format(PyExc_TypeError, "agree takes 6 arguments, not %zd", num_args);
    const int64_t count = num_rows(args[0]);
    const Py_ssize_t pairs = PyObject_Length(args[3]), boxes = PyLong_AsSsize_t(args[4]);
    Py_buffer in[4], out;
    if (PyErr_Occurred()) return NULL;
    if (!take_all(args, 4, "Tqqd", (int64_t[]){count, pairs, pairs, pairs}, in)) return NULL;
    if (!take(args[5], &out, '?', pairs, 1)) return release(in, 4), NULL;
    const Row *rows = in[0].buf;
    const int64_t *row = in[1].buf, *col = in[2].buf;
    const double *value = in[3].buf;
    double *best_row = calloc((size_t)(count + boxes + 1), sizeof *best_row), fit = 0;
    double *best_col = best_row + count;
    for (Py_ssize_t i = 0; best_row && i < pairs; i++) {
        best_row[row[i]] = MOST(best_row[row[i]], value[i]);
        best_col[col[i]] = MOST(best_col[col[i]], value[i]);
    }
    for (Py_ssize_t i = 0; best_row && i < pairs; i++) {
        const int is_best = value[i] >= best_row[row[i]] && value[i] >= best_col[col[i]] && rows[row[i]].is_confirmed;
        ((char *)out.buf)[i] = (char)is_best;
        if (is_best) fit += value[i];
    }
    PyBuffer_Release(&out);
    release(in, 4);
    if (!best_row) return PyErr_NoMemory();
    free(best_row);
    return PyFloat_FromDouble(fit);
}

static int ascending(const void *first, const void *second) {
    const double a = *(const double *)first, b = *(const double *)second;
    return (a > b) - (a < b);
}

static double median(double *values, Py_ssize_t count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* camera_motion.shift_of_pairs along one axis; the values are lost */
static double shared_shift(double *values, Py_ssize_t count) {
    const double middle = median(values, count);
    for (Py_ssize_t i = 0; i < count; i++) values[i] = fabs(values[i] - middle);
    const double chance = SIGNIFICANT_SIGMA * (SIGMA_PER_MAD * median(values, count) / sqrt((double)count));
    const double size = fabs(middle), share = size > chance ? chance / size : 1.0;
    return middle * (1 - share * share);
}

/* shift(state, number of tracks, centres (N, 4), row (P,), col (P,), best (P,) bool) -> the shift that the best share */
static PyObject *shift(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    if (num_args != 6) return PyErr_Format(PyExc_TypeError, "shift takes 6 arguments, not %zd", num_args);
    const int64_t count = PyLong_AsLongLong(args[1]);
    const Py_ssize_t pairs = PyObject_Length(args[3]);
    Py_buffer in[4], state;
    if (PyErr_Occurred()) return NULL;
    if (!take_all(args + 2, 4, "dqq?", (int64_t[]){-1, pairs, pairs, pairs}, in)) return NULL;
    if (!take(args[0], &state, 'd', 4 * PARTS * count, 0)) return release(in, 4), NULL;
    double *error = malloc((size_t)(pairs + 1) * sizeof *error), moved[2] = {0, 0};
    for (int axis = 0; error && axis < 2; axis++) {
        Py_ssize_t num = 0;
        for (Py_ssize_t i = 0; i < pairs; i++)
            if (((const char *)in[3].buf)[i])
                error[num++] = ((const double *)in[0].buf)[4 * ((const int64_t *)in[2].buf)[i] + axis] -
                               ((const double *)state.buf)[4 * ((const int64_t *)in[1].buf)[i] + axis];
        if (num >= LEAST_PAIRS) moved[axis] = shared_shift(error, num);
    }
    PyBuffer_Release(&state);
    release(in, 4);
    if (!error) return PyErr_NoMemory();
    free(error);
    return Py_BuildValue("(dd)", moved[0], moved[1]);
}

/* The shortest augmenting path from one row: Jonker and Volgenant's method, as Crouse gives it for tables that are not
   square (https://doi.org/10.1109/TAES.2016.140952). Ties go to a free column, then to the one that comes last. */
typedef struct {
    const double *cost;
    int64_t rows, cols;
    double *row_dual, *col_dual, *shortest;
    int64_t *col_of, *row_of, *reached_from, *left;
    char *row_done, *col_done;
} Solver;

static int64_t augment(Solver *s, int64_t start, double *length) {
    int64_t num_left = s->cols, row = start;
    for (int64_t i = 0; i < s->cols; i++) {
        s->left[i] = s->cols - 1 - i;
        s->shortest[i] = INFINITY;
    }
    memset(s->row_done, 0, (size_t)s->rows);
    memset(s->col_done, 0, (size_t)s->cols);
    *length = 0;
    for (;;) {
        int64_t nearest = -1;
        double least = INFINITY;
        s->row_done[row] = 1;
        for (int64_t i = 0; i < num_left; i++) {
            const int64_t col = s->left[i];
            const double way = *length + s->cost[row * s->cols + col] - s->row_dual[row] - s->col_dual[col];
            if (way < s->shortest[col]) {
                s->reached_from[col] = row;
                s->shortest[col] = way;
            }
            if (s->shortest[col] < least || (s->shortest[col] == least && s->row_of[col] < 0)) {
                least = s->shortest[col];
                nearest = i;
            }
        }
        if (nearest < 0) return -1;
        *length = least;
        const int64_t col = s->left[nearest];
        s->col_done[col] = 1;
        s->left[nearest] = s->left[--num_left];
        if (s->row_of[col] < 0) return col;
        row = s->row_of[col];
    }
}

/* The column of each row at the least cost; rows are not more than columns. Returns 0 without memory. */
static int solve(const double *cost, int64_t rows, int64_t cols, int64_t *col_of) {
    double *numbers = calloc((size_t)(rows + 2 * cols), sizeof *numbers);
    int64_t *places = malloc((size_t)(3 * cols) * sizeof *places);
    char *flags = malloc((size_t)(rows + cols));
    Solver s = {cost, rows, cols, numbers, numbers + rows, numbers + rows + cols, col_of, places, places + cols,
                places + 2 * cols, flags, flags + rows};
    int is_done = numbers && places && flags;
    for (int64_t i = 0; is_done && i < cols; i++) s.row_of[i] = -1;
    for (int64_t i = 0; is_done && i < rows; i++) col_of[i] = -1;
    for (int64_t start = 0; is_done && start < rows; start++) {
        double length;
        int64_t col = augment(&s, start, &length);
        if (col < 0) break;
        s.row_dual[start] += length;
        for (int64_t i = 0; i < rows; i++)
            if (s.row_done[i] && i != start) s.row_dual[i] += length - s.shortest[col_of[i]];
        for (int64_t i = 0; i < cols; i++)
            if (s.col_done[i]) s.col_dual[i] -= length - s.shortest[i];
        for (int64_t row = -1; row != start;) {
            row = s.reached_from[col];
            s.row_of[col] = row;
            const int64_t next = col_of[row];
            col_of[row] = col;
            col = next;
        }
    }
    free(numbers);
    free(places);
    free(flags);
    return is_done;
}

typedef struct {
    int64_t row, col;
    double gain;
} Pair;

/* Number the used ones of `count` in order: places[i] becomes the number of i, and used[number] is i. */
static int64_t numbered(const int64_t *uses, int64_t count, int64_t *places, int64_t *used) {
    int64_t num = 0;
    for (int64_t i = 0; i < count; i++)
        if (uses[i]) {
            used[num] = i;
            places[i] = num++;
        }
    return num;
}

/* association.assign: writes the row of each chosen column to `row_of`. Returns 0 without memory. */
static int assign(Pair *pairs, int64_t count, int64_t rows, int64_t cols, int64_t *row_of) {
    int64_t *memory = calloc((size_t)(6 * (rows + cols) + 1), sizeof *memory), *next = memory, contested = 0;
    if (!memory) return 0;
    int64_t *in_row = next, *in_col = next + rows;
    next += rows + cols;
    int64_t *row_uses = next, *col_uses = next + rows;
    next += rows + cols;
    int64_t *row_place = next, *col_place = next + rows;
    next += rows + cols;
    int64_t *row_used = next, *col_used = next + rows;
    next += rows + cols;
    for (int64_t i = 0; i < count; i++) {
        in_row[pairs[i].row]++;
        in_col[pairs[i].col]++;
    }
    for (int64_t i = 0; i < count; i++) {
        const Pair pair = pairs[i];
        if (in_row[pair.row] + in_col[pair.col] <= 2) {
            row_of[pair.col] = pair.row;
        } else {
            row_uses[pair.row] = col_uses[pair.col] = 1;
            pairs[contested++] = pair;
        }
    }
    const int64_t high = numbered(row_uses, rows, row_place, row_used), wide = numbered(col_uses, cols, col_place, col_used);
    const int is_tall = wide < high;
    const int64_t lines = is_tall ? wide : high, places = is_tall ? high : wide;
    double *cost = contested ? calloc((size_t)(high * wide), sizeof *cost) : NULL;
    int is_done = !contested || cost;
    if (cost) {
        for (int64_t i = 0; i < contested; i++) {
            const int64_t r = row_place[pairs[i].row], c = col_place[pairs[i].col];
            cost[is_tall ? c * places + r : r * places + c] = -pairs[i].gain;
        }
        is_done = solve(cost, lines, places, next);
        for (int64_t i = 0; is_done && i < lines; i++) {
            if (next[i] < 0 || !(cost[i * places + next[i]] < 0)) continue;
            if (is_tall) row_of[col_used[i]] = row_used[next[i]];
            else row_of[col_used[next[i]]] = row_used[i];
        }
    }
    free(cost);
    free(memory);
    return is_done;
}

typedef struct {
    double before_s, score_high, match_high, match_low, match_new, height_power, score_weight, is_fused, lost_price;
} Matching;

/* association.power_of, for the powers that roots make */
static double root_power(double value, double power) {
    if (power == 0.75) return sqrt(value * sqrt(value));
    return power == 1 ? value : sqrt(value);
}

/* MotionTracker._similarity without direction */
static double similarity(double value, const double *expected, const double *box, double score, double last_score,
                         const Matching *how) {
    if (how->height_power > 0) {
        const double both = LEAST(expected[3], box[3]) - MOST(expected[1], box[1]);
        const double span = MOST(expected[3], box[3]) - LEAST(expected[1], box[1]), ratio = MOST(both, 0.0) / span;
        value *= root_power(ratio, how->height_power);
    }
    if (how->score_weight > 0) value *= 1 - how->score_weight * fabs(last_score - score);
    return how->is_fused ? value * score : value;
}

typedef struct {
    const Row *rows;
    const double *values, *corners, *score, *overlap;
    const int64_t *row, *col;
    int64_t tracks, boxes, pairs;
} Meeting;

/* One round: the pairs that it is about, and their gain. Returns how many there are. */
static int64_t pairs_of_round(const Meeting *m, const Matching *how, int round, const int64_t *track_of,
                              const char *is_taken, Pair *wanted) {
    int64_t num = 0;
    for (int64_t i = 0; i < m->pairs; i++) {
        const int64_t row = m->row[i], col = m->col[i];
        const Row *track = &m->rows[row];
        const int is_good = m->score[col] >= how->score_high;
        if (is_taken[row] || track_of[col] >= 0 || is_good != (round != 1)) continue;
        if ((round == 2) == track->is_confirmed || (round == 1 && track->seen_s < how->before_s)) continue;
        double gain = m->overlap[i] - how->match_low;
        if (round != 1) {
            double expected[4];
            corners_of(m->values + 4 * row, 0.5, expected);
            gain = similarity(m->overlap[i], expected, m->corners + 4 * col, m->score[col], track->score, how);
            gain -= round == 0 ? how->match_high : how->match_new;
            if (round == 0 && gain > 0 && track->seen_s < how->before_s)
                gain = MOST(LEAST_LEFT * gain, gain - how->lost_price);
        }
        if (gain > 0) wanted[num++] = (Pair){row, col, gain};
    }
    return num;
}

/* match(rows, state, corners (N, 4), score (N,), row (P,), col (P,), overlap (P,), numbers of Matching, track_of (N,) to
   write to) */
static PyObject *match(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Matching how;
    if (num_args != 9) return PyErr_Format(PyExc_TypeError, "match takes 9 arguments, not %zd", num_args);
    const int64_t count = num_rows(args[0]);
    const Py_ssize_t boxes = PyObject_Length(args[3]), pairs = PyObject_Length(args[6]);
    Py_buffer in[7], out;
    if (PyErr_Occurred() || !read_numbers(args[7], (double *)&how, 9)) return NULL;
    const int64_t lengths[] = {count, 4 * PARTS * count, 4 * boxes, boxes, pairs, pairs, pairs};
    if (!take_all(args, 7, "Tdddqqd", lengths, in)) return NULL;
    if (!take(args[8], &out, 'q', boxes, 1)) return release(in, 7), NULL;
    const Meeting m = {in[0].buf, in[1].buf, in[2].buf, in[3].buf, in[6].buf, in[4].buf, in[5].buf, count, boxes, pairs};
    int64_t *track_of = out.buf;
    Pair *wanted = malloc((size_t)(pairs + 1) * sizeof *wanted);
    char *is_taken = calloc((size_t)(count + 1), 1);
    int is_done = wanted && is_taken;
    for (Py_ssize_t j = 0; j < boxes; j++) track_of[j] = -1;
    for (int round = 0; is_done && round < 3; round++) {
        const int64_t num = pairs_of_round(&m, &how, round, track_of, is_taken, wanted);
        is_done = num == 0 || assign(wanted, num, count, boxes, track_of);
        for (Py_ssize_t j = 0; j < boxes; j++)
            if (track_of[j] >= 0) is_taken[track_of[j]] = 1;
    }
    free(wanted);
    free(is_taken);
    PyBuffer_Release(&out);
    release(in, 7);
    if (!is_done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

typedef struct {
    double now_s, before_s, position_noise, speed_noise, measurement_noise, weak_noise, replay_s, replay_steps,
        is_per_class, confirm_hits, lost_s, score_new;
} Updating;

/* kalman.replay, up to just before `box` */
static void replay(One *one, const double *last, const double *box, double gap_s, const Updating *how) {
    const int steps = (int)how->replay_steps;
    const double dt_s = gap_s / how->replay_steps;
    for (int step = 1; step <= steps; step++) {
        predict(one, dt_s, how->position_noise, how->speed_noise);
        if (step == steps) return;
        const double share = (double)step / how->replay_steps;
        double between[4];
        for (int i = 0; i < 4; i++) between[i] = last[i] + (box[i] - last[i]) * share;
        see(one, between, how->measurement_noise);
    }
}

/* update(rows, state, seen state, centres (N, 4), score (N,), class_id (N,), index (N,), track_of (N,), numbers of
   Updating, and to write to: kept (T,) bool, new (N,) int64) -> number of tracks that end, number that start */
static PyObject *update(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    Updating how;
    if (num_args != 11) return PyErr_Format(PyExc_TypeError, "update takes 11 arguments, not %zd", num_args);
    const int64_t count = num_rows(args[0]);
    const Py_ssize_t boxes = PyObject_Length(args[4]);
    Py_buffer in[8], out[2];
    if (PyErr_Occurred() || !read_numbers(args[8], (double *)&how, 12)) return NULL;
    const int64_t all = 4 * PARTS * count, lengths[] = {count, all, all, 4 * boxes, boxes, boxes, boxes, boxes};
    if (!take_all(args, 8, "TDDddiqq", lengths, in)) return NULL;
    if (!take_all(args + 9, 2, "?Q", (int64_t[]){count, boxes}, out)) return release(in, 8), NULL;
    Row *rows = in[0].buf;
    const State state = state_of(&in[1], count), seen_state = state_of(&in[2], count);
    const double *centres = in[3].buf, *score = in[4].buf;
    const int64_t *index = in[6].buf, *track_of = in[7].buf;
    Py_ssize_t num_new = 0, num_dead = 0;
    for (Py_ssize_t j = 0; j < boxes; j++) {
        if (track_of[j] < 0) {
            if (score[j] >= how.score_new) ((int64_t *)out[1].buf)[num_new++] = j;
            continue;
        }
        Row *row = &rows[track_of[j]];
        const double *box = centres + 4 * j, gap_s = how.now_s - row->seen_s;
        const int is_gap = row->seen_s < how.before_s || gap_s > how.replay_s;
        One one = one_of(is_gap && how.replay_steps ? &seen_state : &state, track_of[j]);
        if (is_gap && how.replay_steps) replay(&one, row->box, box, gap_s, &how);
        see(&one, box, how.measurement_noise * (1 + how.weak_noise * (1 - score[j])));
        put(&state, track_of[j], &one);
        put(&seen_state, track_of[j], &one);
        row->seen_s = how.now_s;
        row->score = score[j];
        row->detection = (int32_t)index[j];
        memcpy(row->box, box, sizeof row->box);
        row->hits++;
        if (!how.is_per_class) row->class_id = ((const int32_t *)in[5].buf)[j];
    }
    for (int64_t i = 0; i < count; i++) {
        if (rows[i].hits >= how.confirm_hits) rows[i].is_confirmed = 1;
        const int is_old = how.now_s - rows[i].seen_s > how.lost_s;
        const int is_dead = rows[i].detection < 0 && (!rows[i].is_confirmed || is_old);
        ((char *)out[0].buf)[i] = (char)!is_dead;
        num_dead += is_dead;
    }
    release(out, 2);
    release(in, 8);
    return Py_BuildValue("(nn)", num_dead, num_new);
}

/* doubles(rows, state, threshold, longest_s, per class or not, kept (T,) bool to write to) -> whether any track ends */
static PyObject *doubles(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    if (num_args != 6) return PyErr_Format(PyExc_TypeError, "doubles takes 6 arguments, not %zd", num_args);
    const double threshold = PyFloat_AsDouble(args[2]), longest_s = PyFloat_AsDouble(args[3]);
    const int is_per_class = PyObject_IsTrue(args[4]);
    const int64_t count = num_rows(args[0]);
    Py_buffer in[2], out;
    if (count < 0 || PyErr_Occurred()) return NULL;
    if (!take_all(args, 2, "Td", (int64_t[]){count, 4 * PARTS * count}, in)) return NULL;
    if (!take(args[5], &out, '?', count, 1)) return release(in, 2), NULL;
    const Row *rows = in[0].buf;
    const double *values = in[1].buf;
    char *kept = out.buf;
    int is_any = 0;
    memset(kept, 1, (size_t)count);
    for (int64_t lost = 0; lost < count; lost++) {
        double hidden[4];
        if (rows[lost].detection >= 0) continue;
        corners_of(values + 4 * lost, 0.5, hidden);
        for (int64_t here = 0; here < count; here++) {
            double seen[4];
            if (rows[here].detection < 0 || (is_per_class && rows[here].class_id != rows[lost].class_id)) continue;
            corners_of(values + 4 * here, 0.5, seen);
            if (!(seen[0] < hidden[2] && hidden[0] < seen[2] && overlap(hidden, seen) > threshold)) continue;
            const double a_s = rows[lost].seen_s - rows[lost].born_s, b_s = rows[here].seen_s - rows[here].born_s;
            if (LEAST(a_s, b_s) > longest_s) continue;
            kept[a_s < b_s ? lost : here] = 0;
            is_any = 1;
        }
    }
    PyBuffer_Release(&out);
    release(in, 2);
    return PyBool_FromLong(is_any);
}

/* visible(rows, state, boxes of the detections (N, 4) float32, now_s, coast_s, and to write to, T of each: track_id
   int64, box (T, 4) float32, score float32, class_id int32, age float32, velocity (T, 2) float32, detection int32) ->
   number of tracks to report */
static PyObject *visible(PyObject *self, PyObject *const *args, Py_ssize_t num_args) {
    if (num_args != 12) return PyErr_Format(PyExc_TypeError, "visible takes 12 arguments, not %zd", num_args);
    const double now_s = PyFloat_AsDouble(args[3]), coast_s = PyFloat_AsDouble(args[4]);
    const int64_t count = num_rows(args[0]);
    Py_buffer in[3], out[7];
    if (PyErr_Occurred()) return NULL;
    if (!take_all(args, 3, "Tdf", (int64_t[]){count, 4 * PARTS * count, -1}, in)) return NULL;
    if (!take_all(args + 5, 7, "QFFIFFI", (int64_t[]){count, 4 * count, count, count, count, 2 * count, count}, out))
        return release(in, 3), NULL;
    const Row *rows = in[0].buf;
    const State state = state_of(&in[1], count);
    const float *found = in[2].buf;
    Py_ssize_t num = 0;
    for (int64_t i = 0; i < count; i++) {
        const Row *row = &rows[i];
        const int is_seen = row->detection >= 0;
        if (!row->is_confirmed || !(is_seen || (coast_s > 0 && now_s - row->seen_s <= coast_s))) continue;
        float *box = (float *)out[1].buf + 4 * num;
        double expected[4];
        corners_of(state.part[VALUE] + 4 * i, 0.5, expected);
        for (int side = 0; side < 4; side++) box[side] = is_seen ? found[4 * row->detection + side] : (float)expected[side];
        ((int64_t *)out[0].buf)[num] = row->track_id;
        ((float *)out[2].buf)[num] = (float)row->score;
        ((int32_t *)out[3].buf)[num] = row->class_id;
        ((float *)out[4].buf)[num] = (float)(now_s - row->born_s);
        for (int axis = 0; axis < 2; axis++) ((float *)out[5].buf)[2 * num + axis] = (float)state.part[SPEED][4 * i + axis];
        ((int32_t *)out[6].buf)[num++] = row->detection;
    }
    release(out, 7);
    release(in, 3);
    return PyLong_FromSsize_t(num);
}

#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef functions[] = {FUNCTION(usable), FUNCTION(advance), FUNCTION(meet),    FUNCTION(agree),
                                  FUNCTION(shift),  FUNCTION(match),   FUNCTION(update),  FUNCTION(doubles),
                                  FUNCTION(visible), {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_tracks", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__tracks(void) {
    return PyModule_Create(&module);
}
