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

}  // namespace
}  // namespace keen
