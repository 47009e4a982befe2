#include "core/copy.h"

#include <cstring>

#include "core/cuda.h"

namespace keen {

void copy(Context& ctx, Tensor to, ConstTensor from) {
  expect(from, to.shape, to.dtype, "copy: from");
  if (ctx.planning || to.bytes() == 0) return;
  check(to.device == ctx.device || from.device == ctx.device, "copy: one side on the context's device");
  if (to.device == Device::cpu && from.device == Device::cpu) {
    std::memcpy(to.data, from.data, static_cast<size_t>(to.bytes()));
    return;
  }
  if constexpr (kCudaBuilt)
    cuda::copy(ctx, to, from);
  else
    check(false, "copy: no tensor lies on a CUDA device in a build without CUDA");
}

void copy_now(Tensor to, ConstTensor from) {
  expect(from, to.shape, to.dtype, "copy_now: from");
  if (to.bytes() == 0) return;
  if (to.device == Device::cpu && from.device == Device::cpu) {
    std::memcpy(to.data, from.data, static_cast<size_t>(to.bytes()));
    return;
  }
  if constexpr (kCudaBuilt)
    cuda::copy_now(to, from);
  else
    check(false, "copy_now: no tensor lies on a CUDA device in a build without CUDA");
}

}  // namespace keen
