#include "ops/copy_heads.h"

#include <cstring>

#include "core/parallel.h"

namespace keen::ops {

void copy_heads(Context& ctx, Heads to, ConstHeads from) {
  check(
      to.B == from.B && to.T == from.T && to.heads == from.heads && to.D == from.D && to.dtype == from.dtype,
      "copy_heads: views of one shape and type");
  on_device(ctx, [&]<Device D>() { copy_heads_on<D>(ctx, to, from); });
}

template <> void copy_heads_on<Device::cpu>(Context&, Heads to, ConstHeads from) {
  const int64_t element = size_of(to.dtype), row_bytes = to.heads * to.D * element;
  parallel_for(to.B * to.T, 64, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / to.T, t = row % to.T;
      std::memcpy(to.data + (b * to.sequence_stride + t * to.token_stride) * element,
                  from.data + (b * from.sequence_stride + t * from.token_stride) * element,
                  static_cast<size_t>(row_bytes));
    }
  });
}

}  // namespace keen::ops
