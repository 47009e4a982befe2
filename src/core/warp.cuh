// What threads of a warp and of a block do together, in a fixed order: the same bits every time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

#include "core/dtype.h"

namespace keen::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return x; }

// Rounds to nearest, ties to even, as the CPU does; one instruction.
template <class T> __device__ __forceinline__ T from_float(float x) {
  if constexpr (std::is_same_v<T, bf16>) {
    bf16 y;
    y.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
    return y;
  } else {
    return x;
  }
}

// Two rounded floats in a word, `low` in its lower half; one instruction.
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return static_cast<uint32_t>(__bfloat16_as_ushort(pair.x)) |
         static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16;
}

// 16 bytes of T as floats. `load` and `store` need an address that is a multiple of 16 bytes.
template <class T> struct Pack {
  static constexpr int kSize = 16 / sizeof(T);
  float x[kSize];

  __device__ __forceinline__ static Pack load(const T* from) {
    Pack pack;
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (std::is_same_v<T, bf16>) {
        pack.x[2 * i] = std::bit_cast<float>(words[i] << 16);
        pack.x[2 * i + 1] = std::bit_cast<float>(words[i] & 0xffff0000u);
      } else {
        pack.x[i] = std::bit_cast<float>(words[i]);
      }
    }
    return pack;
  }
  __device__ __forceinline__ void store(T* to) const {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (std::is_same_v<T, bf16>)
        words[i] = bf16_pair(x[2 * i], x[2 * i + 1]);
      else
        words[i] = std::bit_cast<uint32_t>(x[i]);
    }
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
};

// Whether rows of `row_elements` from each of these addresses can be read in Packs of T.
template <class T, class... Pointers> bool packable(int64_t row_elements, const Pointers*... at) {
  return row_elements % Pack<T>::kSize == 0 && ((reinterpret_cast<uintptr_t>(at) % 16 == 0) && ...);
}

// Reductions over the 32 lanes of a warp, which all take part; every lane gets the result.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}
template <class T> __device__ __forceinline__ T warp_max(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, x, offset);
    x = x > other ? x : other;
  }
  return x;
}

namespace detail {

// Warps reduce, then every warp reduces the warps' results. The first barrier lets go of the results of the
// call before.
template <class T, class F> __device__ __forceinline__ T block_reduce(T x, T neutral, const F& reduce_warp) {
  __shared__ T of_warp[kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  x = reduce_warp(x);
  __syncthreads();
  if (lane == 0) of_warp[threadIdx.x / kWarp] = x;
  __syncthreads();
  return reduce_warp(lane < warps ? of_warp[lane] : neutral);
}

}  // namespace detail

// Reductions over a block of one dimension whose size is a multiple of 32; every thread takes part and gets
// the result. Two barriers.
template <class T> __device__ __forceinline__ T block_sum(T x) {
  return detail::block_reduce(x, T(0), [](T y) { return warp_sum(y); });
}
// `lowest` is below or equal to every x.
template <class T> __device__ __forceinline__ T block_max(T x, T lowest) {
  return detail::block_reduce(x, lowest, [](T y) { return warp_max(y); });
}

}  // namespace keen::cuda
