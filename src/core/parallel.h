// Loops over CPU threads, compiled for several instruction sets.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

// Before a loop whose iterations do not depend on each other. `omp simd` says the same, but g++ fixes the
// number of its lanes when it reads the lambda around the loop, by the baseline's 16 bytes; loops over bf16,
// whose vectors have twice as many lanes, then use half of a wide register. Sums over a loop need `omp simd`.
#if defined(__GNUC__) && !defined(__clang__)
#define KEEN_INDEPENDENT _Pragma("GCC ivdep")
#else
#define KEEN_INDEPENDENT _Pragma("omp simd")
#endif

namespace keen {

// The bytes of one vector register, as a constant, of the instruction set that a loop's body is compiled for.
// A body that takes it as its third argument can shape its register blocks by it.
template <int kBytes> using VectorBytes = std::integral_constant<int, kBytes>;
// The same where the processor also adds products of pairs of bf16 to a float (AVX512-BF16), and does it
// faster than it multiplies floats. Only bodies that take it are compiled for these processors; others run
// there as they do with AVX-512 alone.
struct Bf16Pairs : VectorBytes<64> {};

namespace detail {

template <class F, class Vectors>
constexpr bool kTakes = std::is_invocable_v<const F&, int64_t, int64_t, Vectors>;

template <class Vectors, class F> void call_body(const F& body, int64_t begin, int64_t end) {
  if constexpr (kTakes<F, Vectors>)
    body(begin, end, Vectors{});
  else
    body(begin, end);
}

// The same loop compiled three or four times; `flatten` pulls everything that it calls into each version, so
// plain loops in the body are vectorized for the processor that runs them. One binary serves every x86-64.
// (clang, which builds the fuzzers, does not know the levels by these names.)
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
template <class F>
[[gnu::target("arch=x86-64-v4,avx512bf16,prefer-vector-width=512"), gnu::flatten, gnu::noinline]] void
run_avx512_bf16(const F& body, int64_t begin, int64_t end) {
  call_body<Bf16Pairs>(body, begin, end);
}
template <class F>
[[gnu::target("arch=x86-64-v4,prefer-vector-width=512"), gnu::flatten, gnu::noinline]] void run_avx512(
    const F& body, int64_t begin, int64_t end) {
  call_body<VectorBytes<64>>(body, begin, end);
}
template <class F>
[[gnu::target("arch=x86-64-v3"), gnu::flatten, gnu::noinline]] void run_avx2(const F& body, int64_t begin,
                                                                             int64_t end) {
  call_body<VectorBytes<32>>(body, begin, end);
}
// The level of x86-64; 5 is level 4 with AVX512-BF16 that is worth its rounding. On Intel's it is not:
// oneDNN's products reached 130 to 148 GFLOP/s with it and 220 to 245 in float32 (Xeon, 2 cores, 28 November
// 2026).
inline int vector_level() {
  static const int level = [] {
    if (__builtin_cpu_supports("x86-64-v4"))
      return __builtin_cpu_supports("avx512bf16") && !__builtin_cpu_is("intel") ? 5 : 4;
    return __builtin_cpu_supports("x86-64-v3") ? 3 : 1;
  }();
  return level;
}
template <class F> void run_vectorized(const F& body, int64_t begin, int64_t end) {
  if constexpr (kTakes<F, Bf16Pairs>)
    if (vector_level() == 5) return run_avx512_bf16(body, begin, end);
  if (vector_level() >= 4) return run_avx512(body, begin, end);
  if (vector_level() == 3) return run_avx2(body, begin, end);
  call_body<VectorBytes<16>>(body, begin, end);
}
#else
template <class F> void run_vectorized(const F& body, int64_t begin, int64_t end) {
  call_body<VectorBytes<16>>(body, begin, end);
}
#endif

}  // namespace detail

// Calls body(begin, end) on contiguous pieces that cover [0, count), at most one per thread, each at least
// `grain` long. Which piece a thread gets depends on the number of threads: a result that must not depend on
// it is computed per item, or in chunks of fixed length that are then added in order. The body must not
// throw; it may take a third argument, VectorBytes<n> or Bf16Pairs.
template <class F> void parallel_for(int64_t count, int64_t grain, const F& body) {
  const int64_t pieces =
      std::min<int64_t>(omp_get_max_threads(), (count + grain - 1) / std::max<int64_t>(grain, 1));
  if (pieces <= 1 || omp_in_parallel()) {
    if (count > 0) detail::run_vectorized(body, 0, count);
    return;
  }
  // OpenMP may give fewer threads than asked for (OMP_THREAD_LIMIT, OMP_DYNAMIC): then a thread takes several
  // pieces.
#pragma omp parallel num_threads(static_cast <int>(pieces))
  for (int64_t piece = omp_get_thread_num(); piece < pieces; piece += omp_get_num_threads())
    detail::run_vectorized(body, piece * count / pieces, (piece + 1) * count / pieces);
}

// As parallel_for, for few items of unequal cost: body(item, item + 1), the next free thread takes the next
// item. At most `count` threads take part, so omp_get_thread_num() is below min(count,
// omp_get_max_threads()).
template <class F> void parallel_for_each(int64_t count, const F& body) {
  const auto threads = static_cast<int>(std::clamp<int64_t>(count, 1, omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && !omp_in_parallel())
  for (int64_t item = 0; item < count; ++item) detail::run_vectorized(body, item, item + 1);
}

}  // namespace keen
