// Shared by the tests of ops: tensors with memory of their own, poisoned outputs, and the gradient check
// against central differences in float64.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <vector>

#include "core/context.h"
#include "core/philox.h"

namespace keen::testing {

// Owns the tensors of one test.
class Tensors {
 public:
  // Filled with NaN (or, for ints, with a huge value), so that an output that is not overwritten shows.
  Tensor poisoned(Shape shape, DType dtype = DType::f64) {
    Tensor x = raw(shape, dtype);
    if (dtype == DType::i32)
      std::fill_n(x.as<int32_t>(), x.count(), std::numeric_limits<int32_t>::max());
    else
      fill(x, [](int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
    return x;
  }
  Tensor zeros(Shape shape, DType dtype = DType::f64) { return raw(shape, dtype); }
  // Normal numbers; the same values, rounded, for every dtype.
  Tensor normal(Shape shape, DType dtype = DType::f64, double scale = 1, double mean = 0) {
    Tensor x = raw(shape, dtype);
    const Philox random(++stream_);
    fill(x, [&](int64_t i) { return mean + scale * random.normal(static_cast<uint64_t>(i)); });
    return x;
  }
  Tensor ids(Shape shape, int64_t below) {
    Tensor x = raw(shape, DType::i32);
    const Philox random(++stream_);
    for (int64_t i = 0; i < x.count(); ++i)
      x.as<int32_t>()[i] =
          static_cast<int32_t>(random.uniform(static_cast<uint64_t>(i)) * static_cast<double>(below));
    return x;
  }
  Tensor copy_as(ConstTensor x, DType dtype) {
    Tensor y = raw(x.shape, dtype);
    std::vector<double> values = to_doubles(x);
    fill(y, [&](int64_t i) { return values[static_cast<size_t>(i)]; });
    return y;
  }

  static void fill(Tensor x, const std::function<double(int64_t)>& value) {
    with_float_type(x.dtype, [&]<class T>() {
      for (int64_t i = 0; i < x.count(); ++i) x.as<T>()[i] = T(static_cast<Wide<T>>(value(i)));
    });
  }
  static std::vector<double> to_doubles(ConstTensor x) {
    std::vector<double> values(static_cast<size_t>(x.count()));
    with_float_type(x.dtype, [&]<class T>() {
      for (int64_t i = 0; i < x.count(); ++i)
        values[static_cast<size_t>(i)] = static_cast<double>(Wide<T>(x.as<T>()[i]));
    });
    return values;
  }

 private:
  Tensor raw(Shape shape, DType dtype) {
    Tensor x;
    x.shape = shape;
    x.dtype = dtype;
    memory_.emplace_back(Device::cpu, std::max<int64_t>(x.bytes(), 1), "a test");
    x.data = memory_.back().data();
    return x;
  }
  std::deque<Buffer> memory_;
  uint64_t stream_ = 0;
};

// A context whose scratch arena is as large as `run` needs: plans it, allocates, and is then ready to run it.
inline void prepare(Context& ctx, const std::function<void()>& run) {
  ctx.planning = true;
  run();
  ctx.planning = false;
  ctx.scratch.allocate("scratch");
}

// The largest relative difference |a - b| / (largest |b| + floor).
inline double relative_error(ConstTensor a, ConstTensor b, double floor = 1e-30) {
  EXPECT_EQ(a.shape, b.shape);
  const auto x = Tensors::to_doubles(a), y = Tensors::to_doubles(b);
  double worst = 0, size = floor;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!(std::abs(x[i] - y[i]) <= worst)) worst = std::abs(x[i] - y[i]);
    size = std::max(size, std::abs(y[i]));
  }
  return worst / size;
}

// Compares `gradient` with central differences of `loss` over elements of `x` (all float64), at most `most`
// of them, evenly spread. Returns the largest |difference| / max(1, |gradient|).
inline double gradient_error(const std::function<double()>& loss, Tensor x, ConstTensor gradient,
                             int64_t most = 64) {
  EXPECT_EQ(x.count(), gradient.count());
  const int64_t stride = std::max<int64_t>(1, x.count() / most);
  double worst = 0;
  for (int64_t i = 0; i < x.count(); i += stride) {
    double& value = x.as<double>()[i];
    const double h = 1e-5, before = value;
    value = before + h;
    const double above = loss();
    value = before - h;
    const double below = loss();
    value = before;
    const double got = gradient.as<double>()[i], want = (above - below) / (2 * h);
    const double error = std::abs(got - want) / std::max(1.0, std::abs(want));
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

// sum of x * weight: turns a tensor into a scalar loss whose gradient is `weight`.
inline double dot(ConstTensor x, ConstTensor weight) {
  const auto a = Tensors::to_doubles(x), b = Tensors::to_doubles(weight);
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace keen::testing
