// The kernels as a shared library whose functions numpy can call.
#include "../edge/engines/cuda/kernels.cu"

RUNNABLE(letterbox, LetterboxArgs)
RUNNABLE(nms_begin, NmsArgs)
RUNNABLE(nms_rank, NmsArgs)
RUNNABLE(nms_overlaps, NmsArgs)
RUNNABLE(nms_greedy, NmsArgs)
RUNNABLE(nms_silence, NmsArgs)
