#include "ops/cross_entropy.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace keen::ops {

namespace {

template <class W> W largest(const W* x, int64_t count) {
  W largest = x[0];
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < count; ++j) largest = x[j] > largest ? x[j] : largest;
  return largest;
}

// Blocks are added in double: fifty thousand terms in one float would lose digits.
template <class W> double sum_of_exponentials(const W* x, int64_t count, W shift) {
  constexpr int64_t kBlock = 2048;
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    W sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = begin; j < end; ++j) sum += simd::exp_nonpositive(x[j] - shift);
    total += static_cast<double>(sum);
  }
  return total;
}

template <class W, class T> void cross_entropy_rows(const CrossEntropy& args, T* dlogits) {
  const auto [rows, columns] = dims<2>(args.logits);
  const int64_t stride = columns, width = args.columns > 0 ? args.columns : columns;
  const W* logits = args.logits.as<W>();
  const int32_t* targets = args.targets.as<int32_t>();
  W* losses = args.losses.as<W>();
  const double scale = args.scale;
  parallel_for(rows, 1 + (1 << 12) / width, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const W* x = logits + row * stride;
      const W top = largest(x, width);
      const double sum = sum_of_exponentials(x, width, top);
      const int64_t target = targets[row];
      const W at_target = x[target] - top;
      losses[row] = static_cast<W>(std::log(sum) - static_cast<double>(at_target));
      if (dlogits == nullptr) continue;
      // dlogits may be the memory of logits: every element is read before it is written, and the target's
      // logit was read above. The second exponential costs less than a row of float32 scratch would where
      // dlogits is bf16.
      T* dx = dlogits + row * stride;
      const W factor = static_cast<W>(scale / sum);
      KEEN_INDEPENDENT
      for (int64_t j = 0; j < width; ++j) dx[j] = T(simd::exp_nonpositive(x[j] - top) * factor);
      dx[target] = T(simd::exp_nonpositive(at_target) * factor - static_cast<W>(scale));
      for (int64_t j = width; j < stride; ++j) dx[j] = T(W(0));
    }
  });
}

}  // namespace

void cross_entropy(Context& ctx, const CrossEntropy& args) {
  const auto [rows, width] = dims<2>(args.logits);
  const DType type = args.logits.dtype;
  check(type == DType::f32 || type == DType::f64, "cross_entropy: logits must be float32 or float64");
  check(width >= 1, "cross_entropy: logits need at least one column");
  check(args.columns >= 0 && args.columns <= width, "cross_entropy: no more columns than logits have");
  expect(args.losses, {rows}, type, "cross_entropy: losses (N)");
  expect(args.targets, {rows}, DType::i32, "cross_entropy: targets (N)");
  if (args.dlogits) {
    expect(args.dlogits, {rows, width}, args.dlogits.dtype, "cross_entropy: dlogits (N, V)");
    check(args.dlogits.dtype == type || (args.dlogits.dtype == DType::bf16 && type == DType::f32),
          "cross_entropy: dlogits must be of the type of logits, or bf16 beside float32");
    check(args.dlogits.dtype == type || args.dlogits.data != args.logits.data || args.dlogits.data == nullptr,
          "cross_entropy: dlogits may alias logits only where the types are equal");
  }
  on_device(ctx, [&]<Device D>() { cross_entropy_on<D>(ctx, args); });
}

template <> void cross_entropy_on<Device::cpu>(Context&, const CrossEntropy& args) {
  if (args.logits.dtype == DType::f64)
    cross_entropy_rows<double, double>(args, args.dlogits ? args.dlogits.as<double>() : nullptr);
  else if (args.dlogits && args.dlogits.dtype == DType::bf16)
    cross_entropy_rows<float, bf16>(args, args.dlogits.as<bf16>());
  else
    cross_entropy_rows<float, float>(args, args.dlogits ? args.dlogits.as<float>() : nullptr);
}

}  // namespace keen::ops
