// Vectors of one register, for loops that are written with them because plain ones do not vectorize as they
// should. These functions are to be inlined into the body of a parallel loop, which compiles them for the
// processor (VectorBytes in core/parallel.h).
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#ifdef __x86_64__
#include <immintrin.h>
#endif
#ifdef __aarch64__
#include <arm_neon.h>
#endif

#include "core/dtype.h"

namespace keen::simd {

// Two bf16 in one lane, the first in the low half. What holds them is also written as bf16 and as vectors.
struct [[gnu::may_alias]] Bf16Pair {
  uint32_t bits;
};

template <class E, int kBytes> struct VectorOf { typedef E type __attribute__((vector_size(kBytes))); };
template <int kBytes> struct VectorOf<Bf16Pair, kBytes> {
  typedef int32_t type __attribute__((vector_size(kBytes), may_alias));
};
template <class E, int kBytes> constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(E));

// x = the numbers at `from`, which need not be aligned; bf16 becomes float.
template <int kBytes, class V, class T> [[gnu::always_inline]] inline void load_lanes(V& x, const T* from) {
  if constexpr (std::is_same_v<T, bf16>) {
    typename VectorOf<uint16_t, kBytes / 2>::type halves;
    __builtin_memcpy(&halves, from, kBytes / 2);
    using Bits = typename VectorOf<uint32_t, kBytes>::type;
    x = (V)(__builtin_convertvector(halves, Bits) << 16);
  } else {
    __builtin_memcpy(&x, from, kBytes);
  }
}

// The same of the first `count` numbers; 0 in the other lanes.
template <int kBytes, class T>
[[gnu::always_inline]] inline void load_first_lanes(typename VectorOf<float, kBytes>::type& x, const T* from,
                                                    int64_t count) {
  T padded[kLanes<float, kBytes>] = {};
  for (int64_t lane = 0; lane < count; ++lane) padded[lane] = from[lane];
  load_lanes<kBytes>(x, padded);
}

// sum += x * y in every lane, rounded once where the processor can. Of a plain expression the compiler
// decides that anew wherever it stands. These are not always_inline: the templates that call them are first
// compiled for the baseline, where that would be an error. A parallel loop flattens them into its body.
using Floats4 = VectorOf<float, 16>::type;
#ifdef __aarch64__
inline void add_product(Floats4& sum, const Floats4& x, const Floats4& y) {
  sum = (Floats4)vfmaq_f32((float32x4_t)sum, (float32x4_t)x, (float32x4_t)y);
}
#else
inline void add_product(Floats4& sum, const Floats4& x, const Floats4& y) { sum += x * y; }
#endif
#ifdef __x86_64__
using Floats8 = VectorOf<float, 32>::type;
using Floats16 = VectorOf<float, 64>::type;
[[gnu::target("fma")]] inline void add_product(Floats8& sum, const Floats8& x, const Floats8& y) {
  sum = (Floats8)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)sum);
}
[[gnu::target("avx512f")]] inline void add_product(Floats16& sum, const Floats16& x, const Floats16& y) {
  sum = (Floats16)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)sum);
}
#endif

// Lanes from kFirst on, of the lanes of x and then y, in turn with those kApart behind them.
template <int kFirst, int kApart, class V, int... k>
[[gnu::always_inline]] inline void interleave(V& to, const V& x, const V& y,
                                              std::integer_sequence<int, k...>) {
  to = __builtin_shufflevector(x, y, (kFirst + k / 2 + k % 2 * kApart)...);
}

// to[c][r] = from[r][c] for r < rows and c < columns, each rounded up to the lanes.
template <int kBytes, class E>
[[gnu::always_inline]] inline void transpose(E* to, int64_t to_stride, const E* from, int64_t from_stride,
                                             int64_t rows, int64_t columns) {
  using Bits = std::conditional_t<sizeof(E) == 8, int64_t, int32_t>;
  typedef Bits V __attribute__((vector_size(kBytes), aligned(sizeof(E)), may_alias));
  constexpr int64_t L = kLanes<E, kBytes>;
  constexpr std::make_integer_sequence<int, L> all{};
  for (int64_t r = 0; r < rows; r += L)
    for (int64_t c = 0; c < columns; c += L) {
      V x[L], dealt[L];
      for (int64_t i = 0; i < L; ++i) x[i] = *reinterpret_cast<const V*>(from + (r + i) * from_stride + c);
      // Dealing both halves of the square in turn moves the first bit of an element's index behind its last.
      for (int64_t round = 1; round < L; round *= 2) {
        for (int64_t i = 0; i < L / 2; ++i) {
          interleave<0, L>(dealt[2 * i], x[i], x[i + L / 2], all);
          interleave<L / 2, L>(dealt[2 * i + 1], x[i], x[i + L / 2], all);
        }
        for (int64_t i = 0; i < L; ++i) x[i] = dealt[i];
      }
      for (int64_t i = 0; i < L; ++i) *reinterpret_cast<V*>(to + (c + i) * to_stride + r) = x[i];
    }
}

}  // namespace keen::simd
