#include "core/simd.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "core/parallel.h"

namespace keen {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(Simd, ExpIsAccurateAndKeepsSpecialValues) {
  for (double x = -87.3; x < 0; x += 0.0137)
    EXPECT_NEAR(
        simd::exp_nonpositive(static_cast<float>(x)) / std::exp(static_cast<double>(static_cast<float>(x))),
        1, 2e-7)
        << x;
  // The ends of the range: n = -126, where 2^n is nearly no normal float, and 0 with its rounding errors.
  for (const float x : {-87.33f, -87.3f, -1e-7f, 0.0f, 1e-6f, 1e-3f})
    EXPECT_NEAR(simd::exp_nonpositive(x) / std::exp(static_cast<double>(x)), 1, 2e-7) << x;
  EXPECT_EQ(simd::exp_nonpositive(-88.0f), 0.0f);
  EXPECT_EQ(simd::exp_nonpositive(0.0f), 1.0f);
  EXPECT_EQ(simd::exp_nonpositive(-kInfinity), 0.0f);
  EXPECT_TRUE(std::isnan(simd::exp_nonpositive(kNaN)));
}

TEST(Simd, ExpIsAsAccurateVectorizedForThisProcessor) {
  std::vector<float> x = {-kInfinity, kNaN, -88.0f};
  for (double v = -87.3; v < 0; v += 0.0137) x.push_back(static_cast<float>(v));
  std::vector<float> y(x.size());
  const float* from = x.data();
  float* to = y.data();
  parallel_for(static_cast<int64_t>(x.size()), 64, [=](int64_t begin, int64_t end) {
    KEEN_INDEPENDENT
    for (int64_t i = begin; i < end; ++i) to[i] = simd::exp_nonpositive(from[i]);
  });
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(y[2], 0.0f);
  for (size_t i = 3; i < x.size(); ++i)
    EXPECT_NEAR(y[i] / std::exp(static_cast<double>(x[i])), 1, 2e-7) << x[i];
}

TEST(Simd, SigmoidAndItsComplementAreAccurateNearZero) {
  for (double x = -80; x < 80; x += 0.013) {
    const auto [value, complement] = simd::sigmoid(static_cast<float>(x));
    const double exact = static_cast<double>(static_cast<float>(x));
    EXPECT_NEAR(value * (1 + std::exp(-exact)), 1, 4e-7) << x;
    EXPECT_NEAR(complement * (1 + std::exp(exact)), 1, 4e-7) << x;
  }
  EXPECT_EQ(simd::sigmoid(-kInfinity).value, 0.0f);
  EXPECT_EQ(simd::sigmoid(kInfinity).complement, 0.0f);
  EXPECT_TRUE(std::isnan(simd::sigmoid(kNaN).value));
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
