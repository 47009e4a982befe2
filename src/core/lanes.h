// Vectors of one register, for loops that are written with them because plain ones do not vectorize as they
// should. These functions are to be inlined into the body of a parallel loop, which compiles them for the
// processor (VectorBytes in core/parallel.h).
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

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
template <int kBytes, std::floating_point W>
[[gnu::always_inline]] inline void load_lanes(typename VectorOf<W, kBytes>::type& x, const W* from) {
  __builtin_memcpy(&x, from, kBytes);
}
template <int kBytes>
[[gnu::always_inline]] inline void load_lanes(typename VectorOf<float, kBytes>::type& x, const bf16* from) {
  typename VectorOf<uint16_t, kBytes / 2>::type halves;
  __builtin_memcpy(&halves, from, kBytes / 2);
  using Bits = typename VectorOf<uint32_t, kBytes>::type;
  x = (typename VectorOf<float, kBytes>::type)(__builtin_convertvector(halves, Bits) << 16);
}

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
