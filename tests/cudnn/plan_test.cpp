// Whether cuDNN plans our graphs of attention as fused kernels, for devices that are described, not present.
// The numbers that the kernels compute need a GPU (attention_cuda_test).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/context.h"
#include "ops/attention.h"
#include "ops/attention_cudnn_graph.h"
#include "ops/heads.h"

namespace keen::ops::cudnn {
namespace {

class CudnnPlan : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (const std::string refusal = library_.refusal(); !refusal.empty()) GTEST_SKIP() << refusal;
    std::ifstream in(fmt::format("{}/device_{}.json", KEEN_FIXTURES, GetParam()));
    const std::string json{std::istreambuf_iterator<char>(in), {}};
    device_.emplace(device_properties(library_, json));
  }

  // As the block holds them with RoPE: rotated queries and keys in one buffer, values in the packed qkv,
  // gradients in dqkv.
  static AttentionShape packed(int64_t B, int64_t T, int64_t H, int64_t K, int64_t D) {
    const int64_t qk = (H + K) * D, qkv = (H + 2 * K) * D;
    const HeadStrides rotated{T * qk, qk}, whole{T * qkv, qkv};
    return {.B = B,
            .T = T,
            .H = H,
            .K = K,
            .D = D,
            .q = rotated,
            .k = rotated,
            .v = whole,
            .dq = whole,
            .dk = whole,
            .dv = whole};
  }

  // SSMax without RoPE: scaled queries in a buffer of their own, keys and values in the packed qkv.
  static AttentionShape queries_apart(int64_t B, int64_t T, int64_t H, int64_t K, int64_t D) {
    AttentionShape shape = packed(B, T, H, K, D);
    shape.q = {T * H * D, H * D};
    shape.k = shape.v;
    return shape;
  }

  // Plans the pass forward, backward, and backward with the same bits every time.
  void expect_plans(AttentionShape shape) {
    for (const auto& [backward, deterministic] : {std::pair{false, true}, {true, false}, {true, true}}) {
      shape.backward = backward;
      shape.deterministic = deterministic;
      const Graph graph = attention_graph(library_, shape);
      const auto planned =
          plan(graph, {.properties = &*device_}, attention_workspace_bytes(shape), deterministic);
      EXPECT_TRUE(planned) << GetParam() << (backward ? " backward" : " forward")
                           << (deterministic ? " deterministic" : "") << ": B " << shape.B << " T " << shape.T
                           << " H " << shape.H << " K " << shape.K << " D " << shape.D;
    }
  }

 private:
  Library library_;
  std::optional<Descriptor> device_;
};

TEST_P(CudnnPlan, FusesPackedHeads) { expect_plans(packed(8, 1024, 12, 12, 64)); }

TEST_P(CudnnPlan, FusesQueriesThatLieApart) { expect_plans(queries_apart(4, 1024, 12, 12, 64)); }

TEST_P(CudnnPlan, FusesGroupedHeads) { expect_plans(packed(2, 2048, 16, 4, 128)); }

class SlowCudnnPlan : public CudnnPlan {};

TEST_P(SlowCudnnPlan, FusesOtherWidthsAndOddLengths) {
  expect_plans(packed(4, 1024, 16, 16, 128));
  expect_plans(packed(4, 1024, 12, 4, 64));
  expect_plans(packed(2, 1000, 8, 8, 96));
  expect_plans(packed(3, 77, 4, 2, 32));
  expect_plans(packed(1, 1, 2, 2, 64));
}

// Sequences of a deterministic backward pass go through in calls; README.md promises these sizes.
TEST_P(CudnnPlan, FusesTheCallsOfADeterministicPass) {
  expect_plans(packed(10, 1024, 12, 12, 64));
  expect_plans(packed(4, 1024, 12, 12, 64));
}

// The scratch of a backward pass of GPT-2 124M's shape: H 12, D 64.
int64_t backward_scratch_bytes(int64_t B, int64_t T, bool deterministic) {
  constexpr int64_t kH = 12, kD = 64;
  Context ctx(Device::cuda);
  ctx.planning = true;
  const auto planned = [](Shape shape, DType dtype) {
    Tensor x;
    x.device = Device::cuda;
    x.shape = shape;
    x.dtype = dtype;
    return x;
  };
  const Tensor qkv = planned({B * T, 3 * kH * kD}, DType::bf16), out = planned({B * T, kH * kD}, DType::bf16);
  const auto part = [&](int64_t i) { return heads(qkv, B, i * kH, kH, kD); };
  attention_backward(ctx, {.dq = part(0),
                           .dk = part(1),
                           .dv = part(2),
                           .dout = out,
                           .out = out,
                           .lse = planned({B, kH, T}, DType::f32),
                           .q = part(0),
                           .k = part(1),
                           .v = part(2),
                           .path = AttentionPath::cudnn,
                           .deterministic = deterministic});
  const int64_t delta_bytes = B * kH * T * 4;
  return ctx.scratch.peak() - delta_bytes;
}

TEST(CudnnMemory, ADeterministicBackwardPassIsCappedAndTheOtherGrowsWithTheBatch) {
  constexpr int64_t kBeside = 8192;
  for (const int64_t B : {1, 16, 64}) {
    const int64_t expected = 8 * B * 12 * 1024 * 64;
    EXPECT_NEAR(static_cast<double>(backward_scratch_bytes(B, 1024, false)), static_cast<double>(expected),
                kBeside);
  }
  EXPECT_NEAR(static_cast<double>(backward_scratch_bytes(64, 1024, true)), 10.0 * 12 * 1024 * 1024 * 2,
              kBeside);
  for (const int64_t B : {16, 64, 100}) EXPECT_LT(backward_scratch_bytes(B, 1024, true), int64_t{256} << 20);
  // One sequence that does not fit is a call of its own.
  EXPECT_NEAR(static_cast<double>(backward_scratch_bytes(8, 8192, true)), 12.0 * 8192 * 8192 * 2, kBeside);
}

const auto kDevices = ::testing::Values("sm80", "sm90", "sm100");
std::string device_name(const ::testing::TestParamInfo<const char*>& info) { return info.param; }
INSTANTIATE_TEST_SUITE_P(Devices, CudnnPlan, kDevices, device_name);
INSTANTIATE_TEST_SUITE_P(Devices, SlowCudnnPlan, kDevices, device_name);

}  // namespace
}  // namespace keen::ops::cudnn
