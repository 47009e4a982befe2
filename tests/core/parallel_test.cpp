#include "core/parallel.h"

#include <gtest/gtest.h>

namespace keen {
namespace {

template <class Vectors> constexpr bool kPairs = std::is_same_v<Vectors, Bf16Pairs>;

TEST(Parallel, OnlyBodiesThatTakePairsOfBf16AreGivenThem) {
  bool pairs = false, without = false;
  parallel_for(1, 1, [&]<class Vectors>(int64_t, int64_t, Vectors) { pairs = kPairs<Vectors>; });
  parallel_for(
      1, 1, [&]<class Vectors>(int64_t, int64_t, Vectors) requires(!kPairs<Vectors>) { without = true; });
  EXPECT_TRUE(without);
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
  EXPECT_EQ(pairs, __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16"));
#else
  EXPECT_FALSE(pairs);
#endif
}

}  // namespace
}  // namespace keen
