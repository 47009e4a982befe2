// What a thread reads and writes at once: kVec consecutive elements, as floats. kVec is a Pack's worth of T,
// in 16-byte accesses, where rows are aligned, and 1 where they are not.
#pragma once

#include "core/warp.cuh"

namespace keen::ops {

template <int kVec, class T> __device__ __forceinline__ void load(float (&x)[kVec], const T* from) {
  using Pack = cuda::Pack<T>;
  if constexpr (kVec % Pack::kSize == 0) {
#pragma unroll
    for (int part = 0; part < kVec; part += Pack::kSize) {
      const Pack pack = Pack::load(from + part);
#pragma unroll
      for (int i = 0; i < Pack::kSize; ++i) x[part + i] = pack.x[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) x[i] = cuda::to_float(from[i]);
  }
}

template <int kVec, class T> __device__ __forceinline__ void store(T* to, const float (&x)[kVec]) {
  using Pack = cuda::Pack<T>;
  if constexpr (kVec % Pack::kSize == 0) {
#pragma unroll
    for (int part = 0; part < kVec; part += Pack::kSize) {
      Pack pack;
#pragma unroll
      for (int i = 0; i < Pack::kSize; ++i) pack.x[i] = x[part + i];
      pack.store(to + part);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) to[i] = cuda::from_float<T>(x[i]);
  }
}

// A Pack's worth of T kept as it lies in memory: bf16 then takes half of a float's registers.
template <class T> struct RawPack {
  static constexpr int kSize = cuda::Pack<T>::kSize;
  uint4 words{};

  __device__ __forceinline__ void load(const T* from) { words = *reinterpret_cast<const uint4*>(from); }
  __device__ __forceinline__ void store(T* to) const { *reinterpret_cast<uint4*>(to) = words; }
  // Element by element, rounded to T.
  __device__ __forceinline__ void add(const RawPack& other) {
    uint32_t sum[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (std::is_same_v<T, bf16>)
        sum[w] = cuda::bf16_pair((*this)[2 * w] + other[2 * w], (*this)[2 * w + 1] + other[2 * w + 1]);
      else
        sum[w] = std::bit_cast<uint32_t>((*this)[w] + other[w]);
    }
    words = make_uint4(sum[0], sum[1], sum[2], sum[3]);
  }
  __device__ __forceinline__ float operator[](int i) const {
    const int w = i * 4 / kSize;
    const uint32_t word = w == 0 ? words.x : w == 1 ? words.y : w == 2 ? words.z : words.w;
    if constexpr (std::is_same_v<T, bf16>)
      return std::bit_cast<float>(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
    else
      return std::bit_cast<float>(word);
  }
};

// Calls f.operator()<kVec>() with a Pack's worth of T or with 1.
template <class T, class F> void with_vec(bool packed, const F& f) {
  if (packed) return f.template operator()<cuda::Pack<T>::kSize>();
  f.template operator()<1>();
}

}  // namespace keen::ops
