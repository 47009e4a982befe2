// Shared by the tests of CUDA kernels: the same tensors on both devices, an op run on both, and the
// comparison. A test that derives from CudaTest is skipped where there is no device.
#pragma once

#include <gtest/gtest.h>

#include <cstring>

#include "core/copy.h"
#include "core/cuda.h"
#include "op_test.h"

namespace keen::testing {

inline bool cuda_is_here() {
  if constexpr (kCudaBuilt)
    return cuda::device_count() > 0;
  else
    return false;
}

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_is_here()) GTEST_SKIP() << "this build or this machine has no CUDA device";
  }
};
// The same, once a type of activations: TEST_P(RmsNormCuda, ...) with GetParam(), and
// INSTANTIATE_TEST_SUITE_P(Types, RmsNormCuda, kCudaTypes, type_name).
class CudaTypeTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!cuda_is_here()) GTEST_SKIP() << "this build or this machine has no CUDA device";
  }
};
inline const auto kCudaTypes = ::testing::Values(DType::f32, DType::bf16);
inline std::string type_name(const ::testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}

// A tensor with equal values on both devices. Where the one on CUDA is bf16, the one on the CPU is float32
// and holds the rounded values: it says what the exact answer is.
struct Twin {
  Tensor cpu, cuda;
  explicit operator bool() const { return static_cast<bool>(cuda); }
};

// Owns the twins of one test, and the two contexts that work on them.
class Twins {
 public:
  Context cpu{Device::cpu}, cuda{Device::cuda};

  Twin normal(Shape shape, DType dtype, double scale = 1, double mean = 0) {
    return twin_of(host_.normal(shape, dtype, scale, mean));
  }
  Twin zeros(Shape shape, DType dtype) { return twin_of(host_.zeros(shape, dtype)); }
  Twin ids(Shape shape, int64_t below) { return twin_of(host_.ids(shape, below)); }
  // NaN (a huge value for ints) on both: what an op does not overwrite shows.
  Twin poisoned(Shape shape, DType dtype) { return twin_of(host_.poisoned(shape, dtype)); }
  // The same values as `x`, in memory of its own: for outputs that are added to, and for aliases.
  Twin twin_of(ConstTensor x) {
    Twin twin;
    twin.cuda = raw_on_cuda(x.shape, x.dtype);
    put(twin.cuda, x);
    if (x.dtype == DType::i32) {
      twin.cpu = host_.ids(x.shape, 1);
      std::memcpy(twin.cpu.data, x.data, static_cast<size_t>(x.bytes()));
    } else {
      twin.cpu = host_.copy_as(x, x.dtype == DType::f64 ? DType::f64 : DType::f32);
    }
    return twin;
  }
  // A copy of both sides as they are now.
  Twin copy_of(const Twin& twin) {
    Twin other{host_.copy_as(twin.cpu, twin.cpu.dtype), raw_on_cuda(twin.cuda.shape, twin.cuda.dtype)};
    keen::copy(cuda, other.cuda, twin.cuda);
    return other;
  }
  // The tensor on CUDA, as it is, in host memory.
  Tensor fetch(ConstTensor on_cuda) {
    Tensor x =
        on_cuda.dtype == DType::i32 ? host_.ids(on_cuda.shape, 1) : host_.zeros(on_cuda.shape, on_cuda.dtype);
    keen::copy(cuda, x, on_cuda);
    if constexpr (kCudaBuilt) cuda::synchronize(cuda);
    return x;
  }
  void put(Tensor on_cuda, ConstTensor from) {
    keen::copy(cuda, on_cuda, from);
    if constexpr (kCudaBuilt) cuda::synchronize(cuda);
  }

  // Plans `op` and runs it on each device, with scratch full of NaN. It is called as op(ctx, on) and takes
  // its tensors by on(twin): `run([&](Context& ctx, auto on) { ops::add(ctx, on(y), on(a), on(b)); });`
  template <class Op> void run(const Op& op) {
    run_on_cpu(op);
    run_on_cuda(op);
  }
  template <class Op> void run_on_cpu(const Op& op) {
    run_in(cpu, [&] { op(cpu, [](const Twin& twin) { return twin.cpu; }); });
  }
  template <class Op> void run_on_cuda(const Op& op) {
    run_in(cuda, [&] { op(cuda, [](const Twin& twin) { return twin.cuda; }); });
    if constexpr (kCudaBuilt) cuda::synchronize(cuda);
  }

  // Runs `op` on CUDA again, from the same `outputs`, and expects the same bits. `outputs` are what it
  // writes, as they are before it (poisoned, or added to): they are restored in between.
  template <class Op> void expect_repeats(const Op& op, std::initializer_list<Twin> outputs) {
    std::vector<Twin> before;
    for (const Twin& y : outputs) before.push_back(copy_of(y));
    run_on_cuda(op);
    std::vector<Tensor> first;
    for (const Twin& y : outputs) first.push_back(fetch(y.cuda));
    for (size_t i = 0; i < before.size(); ++i) keen::copy(cuda, outputs.begin()[i].cuda, before[i].cuda);
    run_on_cuda(op);
    for (size_t i = 0; i < before.size(); ++i)
      EXPECT_EQ(std::memcmp(fetch(outputs.begin()[i].cuda).data, first[i].data,
                            static_cast<size_t>(first[i].bytes())),
                0)
          << "output " << i << " has other bits the second time";
  }

 private:
  Tensor raw_on_cuda(Shape shape, DType dtype) {
    Tensor x;
    x.device = Device::cuda;
    x.shape = shape;
    x.dtype = dtype;
    memory_.emplace_back(Device::cuda, std::max<int64_t>(x.bytes(), 1), "a test");
    x.data = memory_.back().data();
    return x;
  }
  void run_in(Context& ctx, const std::function<void()>& run) {
    ctx.scratch = Arena(ctx.device);
    prepare(ctx, run);
    if (ctx.scratch.size() > 0) {
      Tensor all;
      all.data = ctx.scratch.data();
      all.device = ctx.device;
      all.shape = {ctx.scratch.size() / 4};
      // Bytes of 0xff are NaN in every floating type; a GEMM's workspace is too large to write them one by
      // one.
      std::vector<std::byte> bytes(static_cast<size_t>(all.bytes()), std::byte{0xff});
      Tensor nan;
      nan.data = bytes.data();
      nan.shape = all.shape;
      keen::copy(ctx, all, nan);
      if constexpr (kCudaBuilt)
        if (ctx.device == Device::cuda) cuda::synchronize(ctx);
    }
    run();
  }

  Tensors host_;
  std::deque<Buffer> memory_;
};

// The contract's bounds on max |cuda - cpu| / max |cpu|.
inline double cuda_tolerance(DType dtype) { return dtype == DType::bf16 ? 2e-2 : 1e-4; }

// Passes when the CUDA side is as close to the CPU's as its type allows; says where it is farthest if not.
// Use EXPECT_TRUE(close(twins, y)).
inline ::testing::AssertionResult close(Twins& twins, const Twin& y, double tolerance = -1) {
  if (tolerance < 0) tolerance = cuda_tolerance(y.cuda.dtype);
  const Tensor on_host = twins.fetch(y.cuda);
  if (y.cuda.dtype == DType::i32) {
    for (int64_t i = 0; i < y.cpu.count(); ++i)
      if (on_host.as<int32_t>()[i] != y.cpu.as<int32_t>()[i])
        return ::testing::AssertionFailure()
               << "element " << i << " is " << on_host.as<int32_t>()[i] << ", not " << y.cpu.as<int32_t>()[i];
    return ::testing::AssertionSuccess();
  }
  const std::vector<double> got = Tensors::to_doubles(on_host), want = Tensors::to_doubles(y.cpu);
  double worst = 0, size = 1e-30;
  size_t at = 0;
  int64_t not_finite = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i]) || !std::isfinite(want[i])) {
      if (got[i] == want[i] || (std::isnan(want[i]) && std::isnan(got[i]))) continue;
      if (not_finite++ == 0) at = i;
      continue;
    }
    size = std::max(size, std::abs(want[i]));
    if (not_finite == 0 && std::abs(got[i] - want[i]) > worst) {
      worst = std::abs(got[i] - want[i]);
      at = i;
    }
  }
  if (not_finite == 0 && worst <= tolerance * size) return ::testing::AssertionSuccess();
  std::string where;
  int64_t rest = static_cast<int64_t>(at);
  for (int axis = y.cuda.shape.rank - 1; axis >= 0; --axis) {
    where = fmt::format("{}{}{}", rest % y.cuda.shape[axis], where.empty() ? "" : ", ", where);
    rest /= y.cuda.shape[axis];
  }
  auto failure = ::testing::AssertionFailure();
  failure << name_of(y.cuda.dtype) << " " << to_string(y.cuda.shape) << ", element (" << where
          << "): " << got[at] << " on CUDA, " << want[at] << " on the CPU; ";
  if (not_finite > 0) return failure << not_finite << " elements are not finite where they should be, or are";
  return failure << "relative error " << worst / size << " > " << tolerance;
}

}  // namespace keen::testing
