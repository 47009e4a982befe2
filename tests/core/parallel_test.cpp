#include "core/parallel.h"

#include <gtest/gtest.h>

#include <vector>

namespace keen {
namespace {

template <class Vectors> constexpr bool kPairs = std::is_same_v<Vectors, Bf16Pairs>;

TEST(ParallelFor, OnlyBodiesThatTakePairsOfBf16AreGivenThem) {
  bool pairs = false, without = false;
  parallel_for(1, 1, [&]<class Vectors>(int64_t, int64_t, Vectors) { pairs = kPairs<Vectors>; });
  parallel_for(
      1, 1, [&]<class Vectors>(int64_t, int64_t, Vectors) requires(!kPairs<Vectors>) { without = true; });
  EXPECT_TRUE(without);
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
  EXPECT_EQ(pairs, __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16") &&
                       !__builtin_cpu_is("intel"));
#else
  EXPECT_FALSE(pairs);
#endif
  if (!pairs)
    GTEST_SKIP() << "no pairs of bf16 here: the tests of attention do not run its products of pairs";
}

TEST(ParallelFor, CoversEveryItemOnce) {
  for (const int64_t count : {0, 1, 7, 1000}) {
    std::vector<int> seen(static_cast<size_t>(count));
    int* p = seen.data();
    parallel_for(count, 3, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++p[i];
    });
    parallel_for_each(count, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++p[i];
    });
    EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(count), 2));
  }
}

// OpenMP may start fewer threads than asked for: no item is left out then.
TEST(ParallelFor, CoversEveryItemWithFewerThreadsThanAskedFor) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(64);
  omp_set_dynamic(1);  // at most as many as there are processors
  std::vector<int> seen(1000);
  int* p = seen.data();
  parallel_for(1000, 1, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++p[i];
  });
  omp_set_dynamic(0);
  omp_set_num_threads(threads);
  EXPECT_EQ(seen, std::vector<int>(1000, 1));
}

// Scratch for parallel_for_each has a row for each thread that can take an item, and no more.
TEST(ParallelForEach, NumbersItsThreadsBelowTheItems) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(16);
  for (const int64_t count : {1, 2, 3})
    for (int repeat = 0; repeat < 200; ++repeat) {
      std::vector<int> thread_of(static_cast<size_t>(count), -1);
      int* p = thread_of.data();
      parallel_for_each(count, [=](int64_t begin, int64_t) { p[begin] = omp_get_thread_num(); });
      for (const int thread : thread_of) EXPECT_LT(thread, count);
    }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace keen
