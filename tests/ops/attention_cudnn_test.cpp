// cuDNN's attention on a device against the CPU's reference path. Whether it is planned at all is tested
// without a device (tests/cudnn).
#include "ops/attention_cudnn.h"

#include "cuda_test.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

struct Sizes {
  int64_t B, T, H, K, D;
  std::string str() const { return fmt::format("B {} T {} H {} K {} D {}", B, T, H, K, D); }
};

class CudnnCuda : public testing::CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    std::string refusal = "this build has no cuDNN";
    if constexpr (kCudnnBuilt) {
      Context ctx(Device::cuda);
      refusal = cudnn_attention_refusal(ctx);
    }
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
};
class SlowCudnnCuda : public CudnnCuda {};

// Tensors as training has them: q and k in (N, (H + K) D), v in the last columns of (N, (H + 2K) D).
struct Problem {
  Sizes size;
  bool deterministic;
  Twins twins;
  Twin qk, qkv, out, lse, dout, dqkv;

  Problem(const Sizes& s, bool deterministic) : size(s), deterministic(deterministic) {
    const int64_t N = s.B * s.T;
    qk = twins.normal({N, (s.H + s.K) * s.D}, DType::bf16);
    qkv = twins.normal({N, (s.H + 2 * s.K) * s.D}, DType::bf16);
    dout = twins.normal({N, s.H * s.D}, DType::bf16);
    out = twins.poisoned({N, s.H * s.D}, DType::bf16);
    lse = twins.poisoned({s.B, s.H, s.T}, DType::f32);
    dqkv = twins.poisoned({N, (s.H + 2 * s.K) * s.D}, DType::bf16);
  }
  static AttentionPath path_of(const Context& ctx) {
    return ctx.device == Device::cpu ? AttentionPath::reference : AttentionPath::cudnn;
  }
  // Fails where cuDNN does not take it: another path would give the same numbers.
  template <class Args> static void expect_cudnn(Context& ctx, const Args& args) {
    if constexpr (kCudnnBuilt)
      if (ctx.device == Device::cuda && !ctx.planning) {
        EXPECT_TRUE(cudnn_attention_takes(ctx, args));
      }
  }
  auto forward() {
    return [this](Context& ctx, auto on) {
      const ConstTensor rows = on(qk);
      const Attention args{.out = on(out),
                           .lse = on(lse),
                           .q = heads(rows, size.B, 0, size.H, size.D),
                           .k = heads(rows, size.B, size.H, size.K, size.D),
                           .v = heads(ConstTensor(on(qkv)), size.B, size.H + size.K, size.K, size.D),
                           .path = path_of(ctx)};
      expect_cudnn(ctx, args);
      attention(ctx, args);
    };
  }
  auto backward() {
    return [this](Context& ctx, auto on) {
      const ConstTensor rows = on(qk);
      const Tensor to = on(dqkv);
      const AttentionBackward args{.dq = heads(to, size.B, 0, size.H, size.D),
                                   .dk = heads(to, size.B, size.H, size.K, size.D),
                                   .dv = heads(to, size.B, size.H + size.K, size.K, size.D),
                                   .dout = on(dout),
                                   .out = on(out),
                                   .lse = on(lse),
                                   .q = heads(rows, size.B, 0, size.H, size.D),
                                   .k = heads(rows, size.B, size.H, size.K, size.D),
                                   .v = heads(ConstTensor(on(qkv)), size.B, size.H + size.K, size.K, size.D),
                                   .path = path_of(ctx),
                                   .deterministic = deterministic};
      expect_cudnn(ctx, args);
      attention_backward(ctx, args);
    };
  }
  void expect_equal() {
    twins.run(forward());
    EXPECT_TRUE(close(twins, out)) << size.str();
    EXPECT_TRUE(close(twins, lse, 1e-3)) << size.str();
    twins.run(backward());
    EXPECT_TRUE(close(twins, dqkv)) << size.str() << (deterministic ? " deterministic" : "");
  }
};

TEST_F(CudnnCuda, ForwardAndBackwardEqualTheCpu) {
  for (const Sizes& size : {Sizes{2, 128, 4, 4, 64}, Sizes{1, 300, 4, 2, 64}, Sizes{2, 256, 2, 1, 128},
                            Sizes{1, 129, 3, 3, 96}, Sizes{3, 77, 4, 2, 32}, Sizes{1, 1, 2, 2, 64}})
    for (const bool deterministic : {false, true}) Problem(size, deterministic).expect_equal();
}

TEST_F(CudnnCuda, GivesTheSameBitsWhereAskedTo) {
  Problem p({2, 512, 4, 2, 64}, true);
  p.twins.expect_repeats(p.forward(), {p.out, p.lse});
  p.twins.expect_repeats(p.backward(), {p.dqkv});
}

// Three sequences in calls of two and one: 256 MiB hold the gradients of two, of 96 MiB each.
TEST_F(SlowCudnnCuda, TakesSomeSequencesAtATime) {
  Problem p({3, 2048, 12, 12, 64}, true);
  p.expect_equal();
  if constexpr (kCudnnBuilt) {
    EXPECT_LT(p.twins.cuda.scratch.peak(), int64_t{300} << 20);
  }
}

}  // namespace
}  // namespace keen::ops
