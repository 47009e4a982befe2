// Whether cuDNN plans our graphs of attention as fused kernels, for devices that are described, not present.
// The numbers that the kernels compute need a GPU (attention_cuda_test).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "ops/attention_cudnn_graph.h"

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

  // As the block holds them: rotated queries and keys in one buffer, values in the packed qkv, gradients in
  // dqkv.
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

TEST_P(CudnnPlan, FusesGroupedHeads) { expect_plans(packed(2, 2048, 16, 4, 128)); }

class SlowCudnnPlan : public CudnnPlan {};

TEST_P(SlowCudnnPlan, FusesOtherWidthsAndOddLengths) {
  expect_plans(packed(4, 1024, 16, 16, 128));
  expect_plans(packed(4, 1024, 12, 4, 64));
  expect_plans(packed(2, 1000, 8, 8, 96));
  expect_plans(packed(3, 77, 4, 2, 32));
  expect_plans(packed(1, 1, 2, 2, 64));
}

const auto kDevices = ::testing::Values("sm80", "sm90", "sm100");
std::string device_name(const ::testing::TestParamInfo<const char*>& info) { return info.param; }
INSTANTIATE_TEST_SUITE_P(Devices, CudnnPlan, kDevices, device_name);
INSTANTIATE_TEST_SUITE_P(Devices, SlowCudnnPlan, kDevices, device_name);

}  // namespace
}  // namespace keen::ops::cudnn
