// A stand-in for the NVIDIA driver's libcuda.so.1, as strict as the driver API manual and as late as a GPU may be.
//
// Contexts lie on a stack per thread; streams have flags, a queue and a capture state; work is done only when somebody
// waits for it. Memory of the device can be touched by work of the device alone: whoever reads it from the CPU crashes.
// Kernels are those of kernels.cu, compiled as C++ into the library that STAND_IN_KERNELS names; the PTX or cubin that is
// loaded must be one for this GPU all the same. What the manual prohibits is refused with the manual's number.
//
// Environment: STAND_IN_KERNELS, STAND_IN_DEVICES (1), STAND_IN_CAPABILITY (89), STAND_IN_INTEGRATED (0),
// STAND_IN_DRIVER (12080), STAND_IN_MEMORY_MB (128), STAND_IN_TRACE (a file that gets one line for each call).
// Built by cuda_stand_in.py with NVIDIA's own cuda.h, so every signature is the compiler's business.

#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_DEVICES 8
#define MAX_THINGS 4096
#define MAX_STACK 64
#define ARENA_BYTES (1ull << 30)
#define MAX_ARGUMENTS 4096
#define API __attribute__((visibility("default"))) CUresult

// ------------------------------------------------------------------------------------------------ what there is

struct CUctx_st {
    int device;
    unsigned flags;
    int num_retained;
    CUresult lost;  // the sticky error that destroyed it
};
enum Kind { COPY, KERNEL, EVENT, WAIT };
typedef struct Op {
    enum Kind kind;
    void* target;
    const void* source;
    void* staged;  // a copy of pageable memory, taken when the call was made
    size_t num_bytes;
    size_t rows, target_pitch, source_pitch;  // of COPY in two dimensions
    char kernel[64];
    unsigned grid[3], block[3];
    unsigned char arguments[MAX_ARGUMENTS];
    CUevent event;
    struct Op* next;
} Op;
typedef struct {
    Op *first, *last;
    int count;
} Queue;
struct CUgraph_st {
    Queue work;
};
struct CUgraphExec_st {
    CUgraph graph;
};
struct CUstream_st {
    struct CUctx_st* context;
    unsigned flags;
    Queue queue;
    int is_capturing, is_invalidated;
    CUstreamCaptureMode mode;
    pthread_t captured_by;
    CUgraph graph;
};
struct CUevent_st {
    struct CUctx_st* context;
    unsigned flags;
    CUstream stream;
    int is_pending, is_captured;
};
struct CUfunc_st {
    char name[64];
    unsigned block[3];
};
struct CUmod_st {
    char* image;
    size_t num_bytes;
    struct CUfunc_st* functions[64];
    int num_functions;
};
typedef struct {
    size_t start, num_bytes;
    int is_used;
} Block;
typedef struct {
    void* start;
    size_t num_bytes;
    unsigned flags;
} Pinned;

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int is_initialised, num_devices = 1, capability = 89, is_integrated, driver_version = 12080;
static size_t memory_bytes;
static struct CUctx_st primary[MAX_DEVICES];
static __thread struct CUctx_st* stack[MAX_STACK];
static __thread int depth;
static CUstream streams[MAX_THINGS];
static int num_streams;
static Block blocks[MAX_THINGS];
static int num_blocks;
static Pinned pinned[MAX_THINGS];
static int num_pinned;
static unsigned char* arena;
static size_t used_bytes;
static long num_events, num_modules, num_graphs, num_execs;
static FILE* trace_file;
static struct CUstream_st legacy;  // the default stream of all threads

static long number_of(const char* name, long otherwise)
{
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static void trace(const char* name, const char* format, ...)
{
    if (!trace_file) return;
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(trace_file, "%lx %s %s\n", (unsigned long)pthread_self(), name, text);
    fflush(trace_file);
}

static struct CUctx_st* current(void) { return depth ? stack[depth - 1] : NULL; }

static void unlock(int* unused)
{
    (void)unused;
    pthread_mutex_unlock(&lock);
}

#define LOCKED                                                   \
    __attribute__((cleanup(unlock), unused)) int is_locked = 1; \
    pthread_mutex_lock(&lock)
// every call but the few that look at the device needs an initialised driver and a living context
#define BEGIN(...)                                            \
    LOCKED;                                                   \
    trace(__func__, "" __VA_ARGS__);                          \
    if (!is_initialised) return CUDA_ERROR_NOT_INITIALIZED;   \
    if (!current()) return CUDA_ERROR_INVALID_CONTEXT;        \
    if (current()->lost) return current()->lost

// ------------------------------------------------------------------------------------------------ capture rules

static CUresult invalidate(CUstream stream, CUresult code)
{
    stream->is_invalidated = 1;
    trace("invalidated", "%d", code);
    return code;
}

// Calls that may synchronise by themselves. Manual, cuThreadExchangeStreamCaptureMode: prohibited in a thread that
// captures in the modes global or thread-local, and in every thread while one captures in the mode global.
static CUresult unsafe_call(void)
{
    CUresult code = CUDA_SUCCESS;
    for (int i = 0; i < num_streams; ++i) {
        CUstream stream = streams[i];
        if (!stream->is_capturing || stream->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
        int is_own = pthread_equal(stream->captured_by, pthread_self());
        if (is_own || stream->mode == CU_STREAM_CAPTURE_MODE_GLOBAL)
            code = invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    return code;
}

// The legacy stream waits for all blocking streams, and a stream that captures cannot be waited for.
static CUresult legacy_call(void)
{
    CUresult code = CUDA_SUCCESS;
    for (int i = 0; i < num_streams; ++i)
        if (streams[i]->is_capturing && !(streams[i]->flags & CU_STREAM_NON_BLOCKING) && streams[i]->context == current())
            code = invalidate(streams[i], CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    return code;
}

static CUresult check_stream(CUstream stream)
{
    if (!stream || stream == &legacy) return CUDA_SUCCESS;
    for (int i = 0; i < num_streams; ++i)
        if (streams[i] == stream) return stream->context == current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    return CUDA_ERROR_INVALID_HANDLE;
}

#define TRY(call)                        \
    do {                                 \
        CUresult code_ = (call);         \
        if (code_) return code_;         \
    } while (0)

// ------------------------------------------------------------------------------------------------ the device at work

static __thread sigjmp_buf escape;
static __thread volatile int is_working;

static void on_fault(int number)
{
    if (is_working) siglongjmp(escape, 1);
    signal(number, SIG_DFL);
    raise(number);
}

static void open_arena(int is_open)
{
    mprotect(arena, ARENA_BYTES, is_open || is_integrated ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static void* kernels(void)
{
    static void* library;
    const char* path = getenv("STAND_IN_KERNELS");
    if (!library && path) library = dlopen(path, RTLD_NOW);
    return library;
}

static void* symbol(const char* prefix, const char* kernel)
{
    char name[96];
    snprintf(name, sizeof name, "%s_%s", prefix, kernel);
    return kernels() ? dlsym(kernels(), name) : NULL;
}

static void work(const Op* op)
{
    if (op->kind == COPY && !op->rows) memcpy(op->target, op->staged ? op->staged : op->source, op->num_bytes);
    for (size_t row = 0; row < op->rows; ++row)
        memcpy((char*)op->target + row * op->target_pitch, (const char*)op->source + row * op->source_pitch, op->num_bytes);
    if (op->kind == EVENT) op->event->is_pending = 0;
    if (op->kind == KERNEL) {
        void (*run)(const unsigned*, const unsigned*, const void*) = symbol("run", op->kernel);
        run(op->grid, op->block, op->arguments);
    }
}

static void finish(CUstream stream);

static void work_guarded(CUstream stream, const Op* op)
{
    if (stream->context->lost) return;
    struct sigaction mine = {.sa_handler = on_fault, .sa_flags = SA_NODEFER}, before, before_bus;
    sigaction(SIGSEGV, &mine, &before);
    sigaction(SIGBUS, &mine, &before_bus);
    open_arena(1);
    is_working = 1;
    if (sigsetjmp(escape, 1) == 0)
        work(op);
    else
        stream->context->lost = CUDA_ERROR_ILLEGAL_ADDRESS;
    is_working = 0;
    open_arena(0);
    sigaction(SIGSEGV, &before, NULL);
    sigaction(SIGBUS, &before_bus, NULL);
}

static void finish(CUstream stream)
{
    while (stream->queue.first) {
        Op* op = stream->queue.first;
        stream->queue.first = op->next;
        if (!op->next) stream->queue.last = NULL;
        --stream->queue.count;
        if (op->kind == WAIT) {
            if (op->event->is_pending && op->event->stream != stream) finish(op->event->stream);
        } else {
            work_guarded(stream, op);
        }
        free(op->staged);
        free(op);
    }
}

static void finish_all(int is_legacy)
{
    for (int i = 0; i < num_streams; ++i)
        if (!is_legacy || !(streams[i]->flags & CU_STREAM_NON_BLOCKING)) finish(streams[i]);
    if (!is_legacy) finish(&legacy);
}

static void append(Queue* queue, const Op* op)
{
    Op* copy = malloc(sizeof *copy);
    *copy = *op;
    copy->next = NULL;
    if (queue->last)
        queue->last->next = copy;
    else
        queue->first = copy;
    queue->last = copy;
    ++queue->count;
}

static CUresult submit(CUstream stream, const Op* op)
{
    TRY(check_stream(stream));
    if (!stream || stream == &legacy) {
        TRY(legacy_call());
        finish_all(1);
        legacy.context = current();
        append(&legacy.queue, op);
        // later blocking streams wait for it, so it may as well be done now
        finish(&legacy);
        return current()->lost;
    }
    if (stream->is_capturing) {
        if (stream->is_invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        append(&stream->graph->work, op);
        return CUDA_SUCCESS;
    }
    append(&stream->queue, op);
    return CUDA_SUCCESS;
}

// ------------------------------------------------------------------------------------------------ devices, contexts

API cuInit(unsigned flags)
{
    LOCKED;
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    if (is_initialised) return CUDA_SUCCESS;
    num_devices = (int)number_of("STAND_IN_DEVICES", 1);
    capability = (int)number_of("STAND_IN_CAPABILITY", 89);
    is_integrated = (int)number_of("STAND_IN_INTEGRATED", 0);
    driver_version = (int)number_of("STAND_IN_DRIVER", 12080);
    memory_bytes = (size_t)number_of("STAND_IN_MEMORY_MB", 128) << 20;
    const char* path = getenv("STAND_IN_TRACE");
    if (path && *path) trace_file = fopen(path, "a");
    if (num_devices < 1) return CUDA_ERROR_NO_DEVICE;
    arena = mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    open_arena(0);
    for (int i = 0; i < num_devices; ++i) primary[i].device = i;
    is_initialised = 1;
    trace("cuInit", "");
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int* version)
{
    *version = (int)number_of("STAND_IN_DRIVER", 12080);
    return CUDA_SUCCESS;
}

static const struct {
    CUresult code;
    const char *name, *text;
} ERRORS[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {CUDA_ERROR_FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE",
     "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE",
     "cannot set while device is active in this process"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

API cuGetErrorString(CUresult code, const char** text)
{
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; ++i)
        if (ERRORS[i].code == code) return *text = ERRORS[i].text, CUDA_SUCCESS;
    return *text = NULL, CUDA_ERROR_INVALID_VALUE;
}

API cuGetErrorName(CUresult code, const char** text)
{
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; ++i)
        if (ERRORS[i].code == code) return *text = ERRORS[i].name, CUDA_SUCCESS;
    return *text = NULL, CUDA_ERROR_INVALID_VALUE;
}

#define NEED_DEVICE(device)                                 \
    LOCKED;                                                 \
    if (!is_initialised) return CUDA_ERROR_NOT_INITIALIZED; \
    if ((device) < 0 || (device) >= num_devices) return CUDA_ERROR_INVALID_DEVICE

API cuDeviceGetCount(int* count)
{
    if (!is_initialised) return CUDA_ERROR_NOT_INITIALIZED;
    return *count = num_devices, CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice* device, int ordinal)
{
    NEED_DEVICE(ordinal);
    return *device = ordinal, CUDA_SUCCESS;
}

API cuDeviceGetName(char* name, int size, CUdevice device)
{
    NEED_DEVICE(device);
    snprintf(name, (size_t)size, "Stand-in %d", device);
    return CUDA_SUCCESS;
}

API cuDeviceGetPCIBusId(char* name, int size, CUdevice device)
{
    NEED_DEVICE(device);
    snprintf(name, (size_t)size, "0000:%02x:00.0", 0x20 - device);
    return CUDA_SUCCESS;
}

API cuDeviceTotalMem(size_t* num_bytes, CUdevice device)
{
    NEED_DEVICE(device);
    return *num_bytes = memory_bytes, CUDA_SUCCESS;
}

API cuDeviceComputeCapability(int* major, int* minor, CUdevice device)
{
    NEED_DEVICE(device);
    return *major = capability / 10, *minor = capability % 10, CUDA_SUCCESS;
}

API cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device)
{
    NEED_DEVICE(device);
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability / 10; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability % 10; break;
        case CU_DEVICE_ATTRIBUTE_INTEGRATED: *value = is_integrated; break;
        case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: *value = 1; break;
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* is_active)
{
    NEED_DEVICE(device);
    *flags = primary[device].flags;
    return *is_active = primary[device].num_retained > 0, CUDA_SUCCESS;
}

API cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags)
{
    NEED_DEVICE(device);
    trace(__func__, "%d flags %u", device, flags);
    if (primary[device].num_retained) return CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE;
    return primary[device].flags = flags, CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device)
{
    NEED_DEVICE(device);
    ++primary[device].num_retained;
    trace(__func__, "%d flags %u", device, primary[device].flags);
    return *context = &primary[device], CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRelease(CUdevice device)
{
    NEED_DEVICE(device);
    if (!primary[device].num_retained) return CUDA_ERROR_INVALID_CONTEXT;
    return --primary[device].num_retained, CUDA_SUCCESS;
}

// FFmpeg looks for the names without their newest version
#undef cuDevicePrimaryCtxSetFlags
#undef cuDevicePrimaryCtxRelease
API cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags) { return cuDevicePrimaryCtxSetFlags_v2(device, flags); }
API cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }

API cuCtxSetCurrent(CUcontext context)
{
    if (depth) --depth;
    if (context) stack[depth++] = context;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(CUcontext* context) { return *context = current(), CUDA_SUCCESS; }

API cuCtxPushCurrent(CUcontext context)
{
    if (!context || depth == MAX_STACK) return CUDA_ERROR_INVALID_VALUE;
    return stack[depth++] = context, CUDA_SUCCESS;
}

API cuCtxPopCurrent(CUcontext* context)
{
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    CUcontext popped = stack[--depth];
    if (context) *context = popped;
    return CUDA_SUCCESS;
}

API cuCtxGetDevice(CUdevice* device)
{
    BEGIN();
    return *device = current()->device, CUDA_SUCCESS;
}

API cuCtxGetFlags(unsigned* flags)
{
    BEGIN();
    return *flags = current()->flags, CUDA_SUCCESS;
}

API cuCtxDetach(CUcontext context)
{
    (void)context;
    return CUDA_SUCCESS;
}

API cuCtxSynchronize(void)
{
    BEGIN();
    CUresult code = CUDA_SUCCESS;
    // in any capture mode: the manual of cuStreamBeginCapture
    for (int i = 0; i < num_streams; ++i)
        if (streams[i]->is_capturing && streams[i]->context == current())
            code = invalidate(streams[i], CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (code) return code;
    finish_all(0);
    return current()->lost;
}

// ------------------------------------------------------------------------------------------------ memory

API cuMemGetInfo(size_t* free_bytes, size_t* total)
{
    BEGIN();
    *total = memory_bytes;
    return *free_bytes = memory_bytes - used_bytes, CUDA_SUCCESS;
}

API cuMemAlloc(CUdeviceptr* address, size_t num_bytes)
{
    BEGIN("%zu", num_bytes);
    TRY(unsafe_call());
    size_t size = (num_bytes + 511) / 512 * 512;
    if (!num_bytes) return CUDA_ERROR_INVALID_VALUE;
    if (used_bytes + size > memory_bytes) return CUDA_ERROR_OUT_OF_MEMORY;
    Block* found = NULL;
    for (int i = 0; i < num_blocks && !found; ++i)
        if (!blocks[i].is_used && blocks[i].num_bytes == size) found = &blocks[i];
    if (!found) {
        size_t start = num_blocks ? blocks[num_blocks - 1].start + blocks[num_blocks - 1].num_bytes : 0;
        if (num_blocks == MAX_THINGS || start + size > ARENA_BYTES) return CUDA_ERROR_OUT_OF_MEMORY;
        found = &blocks[num_blocks++];
        *found = (Block){start, size, 0};
    }
    found->is_used = 1;
    used_bytes += size;
    open_arena(1);
    memset(arena + found->start, 0xA5, size);
    open_arena(0);
    *address = (CUdeviceptr)(arena + found->start);
    return CUDA_SUCCESS;
}

API cuMemFree(CUdeviceptr address)
{
    BEGIN();
    TRY(unsafe_call());
    for (int i = 0; i < num_blocks; ++i) {
        if (!blocks[i].is_used || (CUdeviceptr)(arena + blocks[i].start) != address) continue;
        finish_all(0);
        blocks[i].is_used = 0;
        used_bytes -= blocks[i].num_bytes;
        open_arena(1);
        memset(arena + blocks[i].start, 0xDD, blocks[i].num_bytes);
        open_arena(0);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

API cuMemHostAlloc(void** address, size_t num_bytes, unsigned flags)
{
    BEGIN("%zu flags %u", num_bytes, flags);
    TRY(unsafe_call());
    if (!num_bytes) return CUDA_ERROR_INVALID_VALUE;
    if (num_pinned == MAX_THINGS) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = aligned_alloc(4096, (num_bytes + 4095) / 4096 * 4096);
    memset(*address, 0xA5, num_bytes);
    pinned[num_pinned++] = (Pinned){*address, num_bytes, flags};
    return CUDA_SUCCESS;
}

API cuMemFreeHost(void* address)
{
    BEGIN();
    TRY(unsafe_call());
    for (int i = 0; i < num_pinned; ++i) {
        if (pinned[i].start != address) continue;
        finish_all(0);
        memset(address, 0xDD, pinned[i].num_bytes);
        free(address);
        pinned[i] = pinned[--num_pinned];
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

API cuMemHostGetDevicePointer(CUdeviceptr* found, void* address, unsigned flags)
{
    BEGIN();
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < num_pinned; ++i) {
        if (address < pinned[i].start || (char*)address >= (char*)pinned[i].start + pinned[i].num_bytes) continue;
        if (!(pinned[i].flags & CU_MEMHOSTALLOC_DEVICEMAP)) return CUDA_ERROR_INVALID_VALUE;
        return *found = (CUdeviceptr)address, CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

static int is_pinned(const void* address, size_t num_bytes)
{
    for (int i = 0; i < num_pinned; ++i)
        if (address >= pinned[i].start &&
            (const char*)address + num_bytes <= (const char*)pinned[i].start + pinned[i].num_bytes)
            return 1;
    return 0;
}

// whether the device may touch this: its own living memory, or pinned memory
static int is_for_device(CUdeviceptr address, size_t num_bytes)
{
    for (int i = 0; i < num_blocks; ++i) {
        CUdeviceptr start = (CUdeviceptr)(arena + blocks[i].start);
        if (blocks[i].is_used && address >= start && address + num_bytes <= start + blocks[i].num_bytes) return 1;
    }
    return is_pinned((const void*)address, num_bytes);
}

static CUresult upload(CUdeviceptr target, const void* source, size_t num_bytes, CUstream stream)
{
    if (!is_for_device(target, num_bytes)) return CUDA_ERROR_INVALID_VALUE;
    Op op = {.kind = COPY, .target = (void*)target, .source = source, .num_bytes = num_bytes};
    if (!is_pinned(source, num_bytes)) {
        // pageable memory is staged before the call returns
        op.staged = malloc(num_bytes);
        memcpy(op.staged, source, num_bytes);
    }
    return submit(stream, &op);
}

static CUresult download(void* target, CUdeviceptr source, size_t num_bytes, CUstream stream)
{
    if (!is_for_device(source, num_bytes)) return CUDA_ERROR_INVALID_VALUE;
    Op op = {.kind = COPY, .target = target, .source = (const void*)source, .num_bytes = num_bytes};
    TRY(submit(stream, &op));
    // into pageable memory the call returns when the copy is done
    if (!is_pinned(target, num_bytes) && stream && !stream->is_capturing) finish(stream);
    return current()->lost;
}

API cuMemcpyHtoDAsync(CUdeviceptr target, const void* source, size_t num_bytes, CUstream stream)
{
    BEGIN("%zu", num_bytes);
    return upload(target, source, num_bytes, stream);
}

API cuMemcpyDtoHAsync(void* target, CUdeviceptr source, size_t num_bytes, CUstream stream)
{
    BEGIN("%zu", num_bytes);
    return download(target, source, num_bytes, stream);
}

// Rows that lie apart; FFmpeg moves its pictures so.
static CUresult copy_2d(const CUDA_MEMCPY2D* what, CUstream stream)
{
    int from_host = what->srcMemoryType == CU_MEMORYTYPE_HOST, to_host = what->dstMemoryType == CU_MEMORYTYPE_HOST;
    Op op = {.kind = COPY, .num_bytes = what->WidthInBytes, .rows = what->Height};
    op.target_pitch = what->dstPitch;
    op.source_pitch = what->srcPitch;
    op.source = (from_host ? (const char*)what->srcHost : (const char*)what->srcDevice) +
                what->srcY * what->srcPitch + what->srcXInBytes;
    op.target = (to_host ? (char*)what->dstHost : (char*)what->dstDevice) + what->dstY * what->dstPitch + what->dstXInBytes;
    size_t from = (op.rows - 1) * op.source_pitch + op.num_bytes, to = (op.rows - 1) * op.target_pitch + op.num_bytes;
    if (!op.rows || op.source_pitch < op.num_bytes || op.target_pitch < op.num_bytes) return CUDA_ERROR_INVALID_VALUE;
    if (!from_host && !is_for_device((CUdeviceptr)op.source, from)) return CUDA_ERROR_INVALID_VALUE;
    if (!to_host && !is_for_device((CUdeviceptr)op.target, to)) return CUDA_ERROR_INVALID_VALUE;
    TRY(submit(stream, &op));
    // pageable memory is read and written before the call returns
    if ((from_host || to_host) && stream && !stream->is_capturing) finish(stream);
    return current()->lost;
}

API cuMemcpy2DAsync(const CUDA_MEMCPY2D* what, CUstream stream)
{
    BEGIN("%zu x %zu", what->WidthInBytes, what->Height);
    return copy_2d(what, stream);
}

API cuMemcpy2D(const CUDA_MEMCPY2D* what)
{
    BEGIN("%zu x %zu", what->WidthInBytes, what->Height);
    TRY(unsafe_call());
    return copy_2d(what, NULL);
}

API cuMemcpyHtoD(CUdeviceptr target, const void* source, size_t num_bytes)
{
    BEGIN("%zu", num_bytes);
    TRY(unsafe_call());
    return upload(target, source, num_bytes, NULL);
}

API cuMemcpyDtoH(void* target, CUdeviceptr source, size_t num_bytes)
{
    BEGIN("%zu", num_bytes);
    TRY(unsafe_call());
    return download(target, source, num_bytes, NULL);
}

// ------------------------------------------------------------------------------------------------ streams, events

API cuStreamCreate(CUstream* stream, unsigned flags)
{
    BEGIN("flags %u", flags);
    if (flags & ~(unsigned)CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    *stream = calloc(1, sizeof **stream);
    (*stream)->context = current();
    (*stream)->flags = flags;
    return streams[num_streams++] = *stream, CUDA_SUCCESS;
}

API cuStreamDestroy(CUstream stream)
{
    BEGIN();
    TRY(check_stream(stream));
    for (int i = 0; i < num_streams; ++i)
        if (streams[i] == stream) streams[i--] = streams[--num_streams];
    finish(stream);
    free(stream);
    return CUDA_SUCCESS;
}

static CUresult settle(CUstream stream)
{
    TRY(check_stream(stream));
    if (!stream || stream == &legacy) {
        TRY(legacy_call());
        finish_all(1);
    } else if (stream->is_capturing) {
        return invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    } else {
        finish(stream);
    }
    return current()->lost;
}

API cuStreamSynchronize(CUstream stream)
{
    BEGIN();
    return settle(stream);
}

API cuStreamQuery(CUstream stream)
{
    BEGIN();
    TRY(check_stream(stream));
    if (stream && stream->is_capturing) return invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return stream && stream->queue.first ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

API cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status)
{
    BEGIN();
    TRY(check_stream(stream));
    *status = !stream || !stream->is_capturing  ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->is_invalidated          ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                                : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

API cuEventCreate(CUevent* event, unsigned flags)
{
    BEGIN("flags %u", flags);
    *event = calloc(1, sizeof **event);
    (*event)->flags = flags;
    (*event)->context = current();
    return ++num_events, CUDA_SUCCESS;
}

API cuEventDestroy(CUevent event)
{
    BEGIN("%p", (void*)event);
    // a stream that was told to wait for it still does: its few bytes are kept
    return --num_events, CUDA_SUCCESS;
}

API cuEventRecord(CUevent event, CUstream stream)
{
    BEGIN();
    Op op = {.kind = EVENT, .event = event};
    event->stream = stream ? stream : &legacy;
    event->is_captured = stream && stream->is_capturing;
    event->is_pending = !event->is_captured;
    return submit(stream, &op);
}

API cuEventSynchronize(CUevent event)
{
    BEGIN();
    if (event->is_captured) return CUDA_ERROR_CAPTURED_EVENT;
    // what stands behind the event stays in the queue
    while (event->is_pending && event->stream->queue.first) {
        Op* rest = event->stream->queue.first->next;
        Queue whole = event->stream->queue;
        event->stream->queue = (Queue){whole.first, whole.first, 1};
        whole.first->next = NULL;
        finish(event->stream);
        event->stream->queue = (Queue){rest, rest ? whole.last : NULL, whole.count - 1};
    }
    return current()->lost;
}

API cuEventQuery(CUevent event)
{
    BEGIN();
    if (event->is_captured) return CUDA_ERROR_CAPTURED_EVENT;
    return event->is_pending ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

API cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end)
{
    BEGIN();
    (void)start, (void)end;
    return *milliseconds = 0, CUDA_SUCCESS;
}

API cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    BEGIN();
    (void)flags;
    if (event->is_captured) return invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    Op op = {.kind = WAIT, .event = event};
    return submit(stream, &op);
}

// ------------------------------------------------------------------------------------------------ kernels

// A text of PTX for this GPU and driver, or a cubin for it.
static CUresult check_image(const char* image, size_t num_bytes)
{
    if (num_bytes > 64 && !memcmp(image, "\177ELF", 4)) {
        unsigned short machine;
        memcpy(&machine, image + 18, 2);
        if (machine != 190) return CUDA_ERROR_INVALID_IMAGE;
        unsigned flags;
        memcpy(&flags, image + 48, 4);
        unsigned arch = (flags >> 8 & 0xff) >= 75 ? flags >> 8 & 0xff : flags & 0xff;
        int is_same = arch / 10 == (unsigned)capability / 10 && arch <= (unsigned)capability;
        return is_same ? CUDA_SUCCESS : CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    const char* version = strstr(image, "\n.version ");
    const char* target = strstr(image, "\n.target sm_");
    if (!version || !target) return CUDA_ERROR_INVALID_IMAGE;
    // ISA 8.0 came with CUDA 12.0, 7.x with 11.x
    int major = 0, minor = 0;
    sscanf(version, "\n.version %d.%d", &major, &minor);
    int newest = driver_version / 1000 >= 13   ? 90 + driver_version % 1000 / 10
                 : driver_version / 1000 == 12 ? 80 + driver_version % 1000 / 10
                                               : 70 + driver_version % 1000 / 10;
    if (major * 10 + minor > newest) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    return atoi(target + 12) <= capability ? CUDA_SUCCESS : CUDA_ERROR_NO_BINARY_FOR_GPU;
}

static CUresult load(CUmodule* module, const char* image, size_t num_bytes)
{
    TRY(unsafe_call());
    TRY(check_image(image, num_bytes));
    *module = calloc(1, sizeof **module);
    (*module)->image = malloc(num_bytes + 1);
    memcpy((*module)->image, image, num_bytes);
    (*module)->image[num_bytes] = 0;
    (*module)->num_bytes = num_bytes;
    return ++num_modules, CUDA_SUCCESS;
}

API cuModuleLoad(CUmodule* module, const char* path)
{
    BEGIN("%s", path);
    FILE* file = fopen(path, "rb");
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    fseek(file, 0, SEEK_END);
    size_t num_bytes = (size_t)ftell(file);
    rewind(file);
    char* image = calloc(1, num_bytes + 1);
    size_t read = fread(image, 1, num_bytes, file);
    fclose(file);
    CUresult code = read == num_bytes ? load(module, image, num_bytes) : CUDA_ERROR_INVALID_IMAGE;
    free(image);
    return code;
}

API cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned num, CUjit_option* options, void** values)
{
    BEGIN();
    (void)num, (void)options, (void)values;
    // PTX ends with a zero; of a cubin nobody says how long it is
    int is_cubin = !memcmp(image, "\177ELF", 4);
    return is_cubin ? CUDA_ERROR_NOT_SUPPORTED : load(module, image, strlen(image));
}

API cuModuleLoadData(CUmodule* module, const void* image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

API cuModuleUnload(CUmodule module)
{
    BEGIN();
    finish_all(0);
    for (int i = 0; i < module->num_functions; ++i) free(module->functions[i]);
    free(module->image);
    free(module);
    return --num_modules, CUDA_SUCCESS;
}

API cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name)
{
    BEGIN("%s", name);
    if (!memmem(module->image, module->num_bytes, name, strlen(name))) return CUDA_ERROR_NOT_FOUND;
    if (!symbol("run", name)) return CUDA_ERROR_NOT_FOUND;
    *function = calloc(1, sizeof **function);
    snprintf((*function)->name, sizeof (*function)->name, "%s", name);
    return module->functions[module->num_functions++] = *function, CUDA_SUCCESS;
}

API cuFuncSetBlockShape(CUfunction function, int x, int y, int z)
{
    BEGIN();
    function->block[0] = (unsigned)x, function->block[1] = (unsigned)y, function->block[2] = (unsigned)z;
    return CUDA_SUCCESS;
}

API cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, CUstream stream, void** parameters, void** extra)
{
    BEGIN("%s grid %u %u %u block %u %u %u", function->name, gx, gy, gz, bx, by, bz);
    int is_wrong = !gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || !by || !bz || bz > 64 || bx * by * bz > 1024;
    if (is_wrong || shared) return CUDA_ERROR_INVALID_VALUE;
    unsigned (*size_of)(void) = symbol("size", function->name);
    const void* source = parameters ? parameters[0] : NULL;
    size_t num_bytes = size_of();
    // CU_LAUNCH_PARAM_BUFFER_POINTER, the pointer, CU_LAUNCH_PARAM_BUFFER_SIZE, the size, CU_LAUNCH_PARAM_END
    if (!parameters && extra) {
        source = extra[1];
        num_bytes = *(size_t*)extra[3];
    }
    if (!source || num_bytes != size_of() || num_bytes > MAX_ARGUMENTS) return CUDA_ERROR_INVALID_VALUE;
    Op op = {.kind = KERNEL, .grid = {gx, gy, gz}, .block = {bx, by, bz}};
    snprintf(op.kernel, sizeof op.kernel, "%s", function->name);
    memcpy(op.arguments, source, num_bytes);
    return submit(stream, &op);
}

// ------------------------------------------------------------------------------------------------ graphs

API cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode)
{
    BEGIN("mode %d flags %u", mode, stream ? stream->flags : 0);
    if (!stream || stream == &legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    TRY(check_stream(stream));
    if (stream->is_capturing) return CUDA_ERROR_ILLEGAL_STATE;
    stream->is_capturing = 1;
    stream->is_invalidated = 0;
    stream->mode = mode;
    stream->captured_by = pthread_self();
    stream->graph = calloc(1, sizeof *stream->graph);
    return ++num_graphs, CUDA_SUCCESS;
}

static void free_graph(CUgraph graph)
{
    while (graph->work.first) {
        Op* op = graph->work.first;
        graph->work.first = op->next;
        free(op->staged);
        free(op);
    }
    free(graph);
    --num_graphs;
}

API cuStreamEndCapture(CUstream stream, CUgraph* graph)
{
    BEGIN("of %d", stream && stream->graph ? stream->graph->work.count : -1);
    TRY(check_stream(stream));
    if (!stream->is_capturing) return CUDA_ERROR_ILLEGAL_STATE;
    int is_other = !pthread_equal(stream->captured_by, pthread_self());
    if (is_other && stream->mode != CU_STREAM_CAPTURE_MODE_RELAXED)
        return invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    stream->is_capturing = 0;
    *graph = stream->is_invalidated ? NULL : stream->graph;
    if (stream->is_invalidated) free_graph(stream->graph);
    stream->graph = NULL;
    return stream->is_invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}

API cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long flags)
{
    BEGIN();
    if (flags || !graph) return CUDA_ERROR_INVALID_VALUE;
    // it copies the graph, which may be destroyed afterwards
    CUgraph own = calloc(1, sizeof *own);
    for (Op* op = graph->work.first; op; op = op->next) {
        Op copy = *op;
        if (op->staged) {
            copy.staged = malloc(op->num_bytes);
            memcpy(copy.staged, op->staged, op->num_bytes);
        }
        append(&own->work, &copy);
    }
    ++num_graphs;
    *exec = calloc(1, sizeof **exec);
    (*exec)->graph = own;
    return ++num_execs, CUDA_SUCCESS;
}

API cuGraphDestroy(CUgraph graph)
{
    BEGIN();
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    return free_graph(graph), CUDA_SUCCESS;
}

API cuGraphExecDestroy(CUgraphExec exec)
{
    BEGIN();
    if (!exec) return CUDA_ERROR_INVALID_VALUE;
    free_graph(exec->graph);
    free(exec);
    return --num_execs, CUDA_SUCCESS;
}

API cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    BEGIN("of %d", exec ? exec->graph->work.count : -1);
    if (!exec || !stream) return CUDA_ERROR_INVALID_VALUE;
    if (stream->is_capturing) return invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    for (Op* op = exec->graph->work.first; op; op = op->next) {
        Op copy = *op;
        if (op->staged) {
            copy.staged = malloc(op->num_bytes);
            memcpy(copy.staged, op->staged, op->num_bytes);
        }
        TRY(submit(stream, &copy));
    }
    return CUDA_SUCCESS;
}

// ------------------------------------------------------------------------------------------------ for the tests

// How much is alive: bytes of device memory, pinned blocks, streams, events, modules, graphs, executable graphs,
// contexts on this thread's stack, and times that contexts are retained.
__attribute__((visibility("default"))) void stand_in_alive(long* counts)
{
    LOCKED;
    long retained = 0;
    for (int i = 0; i < MAX_DEVICES; ++i) retained += primary[i].num_retained;
    long all[] = {(long)used_bytes, num_pinned, num_streams, num_events, num_modules,
                  num_graphs,       num_execs,  depth,       retained};
    memcpy(counts, all, sizeof all);
}

// Enqueues a copy on the device, as another library of the process (TensorRT) would enqueue its kernels.
__attribute__((visibility("default"))) CUresult stand_in_copy(CUdeviceptr target, CUdeviceptr source, size_t num_bytes,
                                                              CUstream stream)
{
    BEGIN("%zu", num_bytes);
    if (!is_for_device(target, num_bytes) || !is_for_device(source, num_bytes)) return CUDA_ERROR_INVALID_VALUE;
    Op op = {.kind = COPY, .target = (void*)target, .source = (const void*)source, .num_bytes = num_bytes};
    return submit(stream, &op);
}

// cuda-bindings asks for every function by its plain name and gets the newest of this library; what is not here is told
// as missing, as by an old driver.
API cuGetProcAddress(const char* name, void** function, int version, cuuint64_t flags,
                     CUdriverProcAddressQueryResult* status)
{
    (void)version, (void)flags;
    static const char* SUFFIXES[] = {"_v4", "_v3", "_v2", ""};
    *function = NULL;
    for (int i = 0; i < 4 && !*function; ++i) {
        char full[128];
        snprintf(full, sizeof full, "%s%s", name, SUFFIXES[i]);
        *function = dlsym(RTLD_DEFAULT, full);
        if (!*function) {
            static void* self;
            if (!self) self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
            if (self) *function = dlsym(self, full);
        }
    }
    if (status) *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
