// Letterbox with normalisation and non-maximum suppression, one plain struct of arguments per kernel.
//
// Letters: B images, N boxes, H W frame pixels, h w model pixels. Boxes are float x1 y1 x2 y2 in pixels.
// No kernel uses shared memory or barriers, so the tests compile this file as C++ and loop over blocks and threads
// (tests/cpu_shim.h). edge/engines/cuda/launches.py describes the same structs to numpy: change both.

#ifndef __CUDACC__
#include "cpu_shim.h"
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned long long u64;

// Rounded one by one on the GPU too: a fused multiply-add gives other bits than numpy, and NMS has a threshold.
#ifdef __CUDA_ARCH__
#define ADD(a, b) __fadd_rn((a), (b))
#define SUB(a, b) __fsub_rn((a), (b))
#define MUL(a, b) __fmul_rn((a), (b))
#define DIV(a, b) __fdiv_rn((a), (b))
#else
#define ADD(a, b) ((a) + (b))
#define SUB(a, b) ((a) - (b))
#define MUL(a, b) ((a) * (b))
#define DIV(a, b) ((a) / (b))
#endif

// The bits of the nearest half; the header that has a type for them is one more thing to be installed.
#ifdef __CUDACC__
__device__ inline u16 half_of(float value)
{
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

enum Pixels { BGR = 0, YUV = 1 };
enum Output { BYTES = 0, FLOAT = 1, HALF = 2 };
#define FRAMES 16  // of one launch; their arguments go by value

struct LetterboxFrame {
    const u8* image;      // BGR: (H, W, 3); YUV: (H, W) luma
    const u8 *blue, *red; // YUV: the differences U and V, ceil(H/2) rows; unused for BGR
    void* out;            // this frame's row of the model's input
    int stride;           // bytes from one row of image to the next
    int chroma_stride;
    int chroma_step;                // bytes from one U to the next: 1 for planes of their own, 2 for pairs (NV12)
    int width, height;              // of the frame
    int left, top;                  // where the picture begins in the model's input
    int inner_width, inner_height;  // size of the picture in the model's input
    int pixels;                     // Pixels
    // what a step of luma, U and V adds to blue, green and red, in 20-bit fixed point
    int luma_offset, luma, u_blue, u_green, v_green, v_red;
};

struct LetterboxArgs {
    LetterboxFrame frames[FRAMES];
    int out_width, out_height;  // of the model's input
    int pad;                    // grey level around the picture
    int output;                 // Output
    int swap;                   // 1: the model wants RGB
    int pixel_step;             // values from one pixel to the next: 3 channels last, 1 channels first
    int channel_step;           // values from one channel to the next
    float mean[3], scale[3];    // (level - mean) * scale, in the model's channel order; not for bytes
};

struct Tap {
    int low, high;
    float weight;  // of high
};

// Pixel centres lie at half: the rule of cv2.INTER_LINEAR.
__device__ inline Tap tap_of(int index, int from, int to)
{
    float position = ((float)index + 0.5f) * ((float)from / (float)to) - 0.5f;
    float floor_position = floorf(position);
    int low = (int)floor_position;
    Tap tap;
    tap.weight = position - floor_position;
    tap.low = low < 0 ? 0 : (low >= from ? from - 1 : low);
    tap.high = low + 1 < 0 ? 0 : (low + 1 >= from ? from - 1 : low + 1);
    return tap;
}

__device__ inline u8 clamp_byte(int value) { return (u8)(value < 0 ? 0 : (value > 255 ? 255 : value)); }

// With the factors of BT.601, limited range, these are the integers of OpenCV's COLOR_YUV2BGR_NV12.
__device__ inline void read_yuv(const LetterboxFrame& a, int x, int y, float* bgr)
{
    int luma = a.image[(long long)y * a.stride + x] - a.luma_offset;
    long long place = (long long)(y / 2) * a.chroma_stride + (x / 2) * a.chroma_step;
    int u = (int)a.blue[place] - 128, v = (int)a.red[place] - 128;
    int base = (luma > 0 ? luma : 0) * a.luma + (1 << 19);
    bgr[0] = (float)clamp_byte((base + a.u_blue * u) >> 20);
    bgr[1] = (float)clamp_byte((base + a.u_green * u + a.v_green * v) >> 20);
    bgr[2] = (float)clamp_byte((base + a.v_red * v) >> 20);
}

__device__ inline void read_pixel(const LetterboxFrame& a, int x, int y, float* bgr)
{
    if (a.pixels == YUV) {
        read_yuv(a, x, y, bgr);
        return;
    }
    const u8* pixel = a.image + (long long)y * a.stride + x * 3;
    for (int c = 0; c < 3; ++c) bgr[c] = (float)pixel[c];
}

__device__ inline void sample(const LetterboxFrame& a, int x, int y, int* level)
{
    Tap across = tap_of(x, a.width, a.inner_width);
    Tap down = tap_of(y, a.height, a.inner_height);
    float p00[3], p01[3], p10[3], p11[3];
    read_pixel(a, across.low, down.low, p00);
    read_pixel(a, across.high, down.low, p01);
    read_pixel(a, across.low, down.high, p10);
    read_pixel(a, across.high, down.high, p11);
    for (int c = 0; c < 3; ++c) {
        float upper = p00[c] + (p01[c] - p00[c]) * across.weight;
        float lower = p10[c] + (p11[c] - p10[c]) * across.weight;
        level[c] = clamp_byte((int)(upper + (lower - upper) * down.weight + 0.5f));
    }
}

// One thread per pixel of the model's input and frame. Grey levels are rounded before normalisation, as on the CPU.
extern "C" __global__ void letterbox(const LetterboxArgs a)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.out_width || y >= a.out_height) return;
    const LetterboxFrame& frame = a.frames[blockIdx.z];
    int level[3] = {a.pad, a.pad, a.pad};
    int inner_x = x - frame.left, inner_y = y - frame.top;
    if (inner_x >= 0 && inner_x < frame.inner_width && inner_y >= 0 && inner_y < frame.inner_height)
        sample(frame, inner_x, inner_y, level);
    long long place = ((long long)y * a.out_width + x) * a.pixel_step;
    for (int c = 0; c < 3; ++c, place += a.channel_step) {
        // a select of two, not an index: that would put the levels into memory
        int chosen = a.swap ? level[2 - c] : level[c];
        float value = MUL(SUB((float)chosen, a.mean[c]), a.scale[c]);
        if (a.output == BYTES) ((u8*)frame.out)[place] = (u8)chosen;
        if (a.output == FLOAT) ((float*)frame.out)[place] = value;
        if (a.output == HALF) ((u16*)frame.out)[place] = half_of(value);
    }
}

struct NmsArgs {
    const float* xyxy;    // (B, N, 4)
    float* score;         // (B, N); NaN is dropped; changed by nms_silence only
    const int* class_id;  // (B, N), or null: all boxes compete
    int* order;           // (B, N) scratch: indices, highest score first, ties in their own order
    u64* overlaps;        // (B, N, words) scratch, words = ceil(N / 64): which later ranks a rank suppresses
    int* keep;            // (B, N) out: indices of the kept boxes, highest score first
    int* count;           // (B) scratch and out: boxes with a score, then boxes kept
    float threshold;      // overlap above which the lower score is dropped
    int images;           // B
    int num;              // N
    int words;
};

// As numpy's maximum and minimum: NaN wins.
__device__ inline float max_nan(float a, float b) { return (a > b || a != a) ? a : b; }
__device__ inline float min_nan(float a, float b) { return (a < b || a != a) ? a : b; }

__device__ inline float area_of(const float* box)
{
    return MUL(max_nan(SUB(box[2], box[0]), 0.0f), max_nan(SUB(box[3], box[1]), 0.0f));
}

// Intersection over union with the roundings of edge.boxes.iou.
__device__ inline float iou_of(const float* a, const float* b)
{
    float width = max_nan(SUB(min_nan(a[2], b[2]), max_nan(a[0], b[0])), 0.0f);
    float height = max_nan(SUB(min_nan(a[3], b[3]), max_nan(a[1], b[1])), 0.0f);
    float shared = MUL(width, height);
    float united = SUB(ADD(area_of(a), area_of(b)), shared);
    return united > 0.0f ? DIV(shared, united) : 0.0f;
}

__device__ inline bool compete(const NmsArgs& a, int image, int first, int second)
{
    if (a.class_id == 0) return true;
    const int* classes = a.class_id + (long long)image * a.num;
    return classes[first] == classes[second];
}

// Step 0, one thread per box.
extern "C" __global__ void nms_begin(NmsArgs a)
{
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    int image = blockIdx.y;
    if (index == 0) a.count[image] = 0;
}

// Step 1, one thread per box: its rank is the number of boxes before it.
extern "C" __global__ void nms_rank(NmsArgs a)
{
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    int image = blockIdx.y;
    if (index >= a.num) return;
    const float* score = a.score + (long long)image * a.num;
    float mine = score[index];
    if (mine != mine) return;
    int rank = 0;
    for (int other = 0; other < a.num; ++other)
        if (score[other] > mine || (score[other] == mine && other < index)) ++rank;
    a.order[(long long)image * a.num + rank] = index;
    atomicAdd(a.count + image, 1);
}

// Step 2, one thread per rank and word: the 64 ranks of that word which this rank suppresses.
extern "C" __global__ void nms_overlaps(NmsArgs a)
{
    int rank = blockIdx.x * blockDim.x + threadIdx.x;
    int word = blockIdx.y;
    int image = blockIdx.z;
    int alive = a.count[image];
    if (rank >= alive) return;
    const int* order = a.order + (long long)image * a.num;
    const float* boxes = a.xyxy + (long long)image * a.num * 4;
    int mine = order[rank];
    u64 bits = 0;
    for (int bit = 0; bit < 64; ++bit) {
        int other = word * 64 + bit;
        if (other <= rank || other >= alive || !compete(a, image, mine, order[other])) continue;
        if (iou_of(boxes + mine * 4, boxes + order[other] * 4) > a.threshold) bits |= 1ull << bit;
    }
    a.overlaps[((long long)image * a.num + rank) * a.words + word] = bits;
}

// Step 3, one thread per image: take the ranks in order; each one taken drops those it suppresses. The first rank is
// always taken, so its row of overlaps becomes the set of those that are dropped.
extern "C" __global__ void nms_greedy(NmsArgs a)
{
    int image = blockIdx.x * blockDim.x + threadIdx.x;
    if (image >= a.images) return;
    int alive = a.count[image];
    int kept = 0;
    const int* order = a.order + (long long)image * a.num;
    u64* rows = a.overlaps + (long long)image * a.num * a.words;
    int* keep = a.keep + (long long)image * a.num;
    u64* dropped = rows;
    for (int rank = 0; rank < alive; ++rank) {
        if (rank > 0 && (dropped[rank / 64] >> (rank % 64) & 1ull)) continue;
        keep[kept++] = order[rank];
        if (rank == 0) continue;
        for (int word = rank / 64; word < a.words; ++word) dropped[word] |= rows[(long long)rank * a.words + word];
    }
    a.count[image] = kept;
}

// Step 4, optional, one thread per box: the score of a box that was not kept becomes 0. NaN stays, whoever looks for
// broken models shall find it.
extern "C" __global__ void nms_silence(NmsArgs a)
{
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    int image = blockIdx.y;
    if (index >= a.num) return;
    float* mine = a.score + (long long)image * a.num + index;
    if (*mine != *mine) return;
    const int* keep = a.keep + (long long)image * a.num;
    for (int place = 0; place < a.count[image]; ++place)
        if (keep[place] == index) return;
    *mine = 0.0f;
}
