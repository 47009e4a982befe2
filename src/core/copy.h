// Copies between tensors, wherever they lie.
#pragma once

#include "core/context.h"

namespace keen {

// to = from: the same shape and type, no overlap. On a context of the CPU both lie in host memory. On one of
// CUDA the copy happens in the order of its stream, and at least one of them lies on the device. Memory of
// the host that is not pinned (every Buffer of the CPU) may be used again, or read, on return; pinned memory
// (PinnedBuffer) only after cuda::synchronize. Does nothing while planning.
void copy(Context& ctx, Tensor to, ConstTensor from);

// to = from at once, wherever both lie: waits for the device, which a step should not. For what is rare or
// small.
void copy_now(Tensor to, ConstTensor from);

}  // namespace keen
