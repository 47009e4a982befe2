// The CUDA attention paths; only attention*.cu include this. Every kernel adds in a fixed order and none uses
// atomics, so that one card gives the same bits every time.
#pragma once

#include "core/launch.cuh"
#include "core/warp.cuh"
#include "ops/attention.h"
#include "ops/attention_cuda.h"

namespace keen::ops::cuda_attention {

// Heads as kernels take them.
template <class T> struct DeviceHeads {
  T* data;
  int64_t sequence_stride;
  int token_stride, D;

  __device__ __forceinline__ T* row(int b, int t, int h) const {
    return data + b * sequence_stride + static_cast<int64_t>(t) * token_stride + h * D;
  }
};
// Offsets inside of 128 rows are 32 bits wide.
inline int narrow_stride(int64_t token_stride) {
  check(token_stride < int64_t{1} << 24, "attention: rows of fewer than 2^24 columns");
  return static_cast<int>(token_stride);
}
template <class T> DeviceHeads<const T> device_heads(const ConstHeads& x) {
  return {x.as<T>(), x.sequence_stride, narrow_stride(x.token_stride), static_cast<int>(x.D)};
}
template <class T> DeviceHeads<T> device_heads(const Heads& x) {
  return {x.as<T>(), x.sequence_stride, narrow_stride(x.token_stride), static_cast<int>(x.D)};
}
// Rows (B * T, H D), as out and dout are.
template <class T, class TensorType>
DeviceHeads<T> packed_heads(const TensorType& x, int64_t tokens, int64_t D) {
  const int64_t columns = x.shape[1];
  return {x.template as<std::remove_const_t<T>>(), tokens * columns, narrow_stride(columns),
          static_cast<int>(D)};
}

// Any type and head width, one row or key a block: the second opinion on the flash kernels, what takes the
// shapes that they do not, and, with the keys of a row shared out over blocks, decoding.
void rows_forward(Context& ctx, const Attention& args, Tensor work);
void rows_backward(Context& ctx, const AttentionBackward& args, ConstTensor delta);

// Tiles on the tensor cores: bf16, head widths 32, 64, 96 and 128, rows that begin at multiples of 16 bytes.
bool flash_takes(const Attention& args);
bool flash_takes(const AttentionBackward& args);
void flash_forward(Context& ctx, const Attention& args);
void flash_backward(Context& ctx, const AttentionBackward& args, ConstTensor delta);

}  // namespace keen::ops::cuda_attention
