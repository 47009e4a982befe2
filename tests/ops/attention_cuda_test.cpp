// The CUDA attention kernels against the CPU's reference path in float32.
#include <numeric>

#include "cuda_test.h"
#include "ops/attention.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Tensors;
using testing::Twin;
using testing::Twins;

constexpr AttentionPath kPaths[] = {AttentionPath::fused, AttentionPath::reference};

struct Sizes {
  int64_t B, T, H, K, D;
  int64_t T_q = 0;  // 0: T
  int64_t queries() const { return T_q == 0 ? T : T_q; }
};
std::string text(const Sizes& s, DType dtype, AttentionPath path) {
  return fmt::format("B {} T {} T_q {} H {} K {} D {} {} {}", s.B, s.T, s.queries(), s.H, s.K, s.D,
                     name_of(dtype), name_of(path));
}

// Tensors as training has them: q and k in (N, (H + K) D), v in the last columns of (N, (H + 2K) D). `gap`
// columns more than that make rows that begin at no multiple of 16 bytes.
struct Problem {
  Sizes size;
  DType dtype;
  Twins twins;
  Twin qk, qkv, out, lse, dout, dqkv;

  Problem(const Sizes& s, DType type, double scale = 1, int64_t gap = 0) : size(s), dtype(type) {
    const int64_t N = s.B * s.T, rows = s.B * s.queries(), columns = (s.H + 2 * s.K) * s.D + gap;
    qk = twins.normal({N, (s.H + s.K) * s.D + gap}, dtype, scale);
    qkv = twins.normal({N, columns}, dtype);
    dout = twins.normal({rows, s.H * s.D}, dtype);
    out = twins.poisoned({rows, s.H * s.D}, dtype);
    lse = twins.poisoned({s.B, s.H, s.queries()}, DType::f32);
    dqkv = twins.poisoned({N, columns}, dtype);
  }
  ConstHeads queries(ConstTensor rows) const {
    ConstHeads all = heads(rows, size.B, 0, size.H, size.D);
    all.T = size.queries();  // the last T_q tokens
    all.data += (size.T - size.queries()) * all.token_stride * size_of(rows.dtype);
    return all;
  }
  // The CPU always computes by its reference path.
  static AttentionPath on_device(Context& ctx, AttentionPath path) {
    return ctx.device == Device::cpu ? AttentionPath::reference : path;
  }
  auto forward_op(AttentionPath path) {
    return [this, path](Context& ctx, auto on) {
      const ConstTensor rows = on(qk);
      attention(ctx, {.out = on(out),
                      .lse = on(lse),
                      .q = queries(rows),
                      .k = heads(rows, size.B, size.H, size.K, size.D),
                      .v = heads(ConstTensor(on(qkv)), size.B, size.H + size.K, size.K, size.D),
                      .path = on_device(ctx, path)});
    };
  }
  auto backward_op(AttentionPath path, bool deterministic = false) {
    return [this, path, deterministic](Context& ctx, auto on) {
      const ConstTensor rows = on(qk);
      const Tensor to = on(dqkv);
      attention_backward(ctx, {.dq = heads(to, size.B, 0, size.H, size.D),
                               .dk = heads(to, size.B, size.H, size.K, size.D),
                               .dv = heads(to, size.B, size.H + size.K, size.K, size.D),
                               .dout = on(dout),
                               .out = on(out),
                               .lse = on(lse),
                               .q = queries(rows),
                               .k = heads(rows, size.B, size.H, size.K, size.D),
                               .v = heads(ConstTensor(on(qkv)), size.B, size.H + size.K, size.K, size.D),
                               .path = on_device(ctx, path),
                               .deterministic = deterministic});
    };
  }
  // Sets the same value on both sides.
  void set(const Twin& twin, int64_t element, double value) {
    Tensor host = twins.fetch(twin.cuda);
    with_float_type(dtype, [&]<class T>() { host.as<T>()[element] = T(static_cast<float>(value)); });
    twins.put(twin.cuda, host);
    twin.cpu.as<float>()[element] =
        static_cast<float>(Tensors::to_doubles(host)[static_cast<size_t>(element)]);
  }
  void expect_forward(AttentionPath path) {
    EXPECT_TRUE(close(twins, out)) << text(size, dtype, path);
    EXPECT_TRUE(close(twins, lse)) << text(size, dtype, path);
  }
};

class AttentionCuda : public testing::CudaTypeTest {};

// Every tensor core kernel (tiles of 128 queries and 64 or 32 keys, 64 or 128 keys and 32 queries), T on both
// sides of multiples of them, one row, two rows; and head widths that only the row kernels take.
TEST_P(AttentionCuda, ForwardAndBackwardEqualTheCpu) {
  const Sizes all[] = {{1, 1, 1, 1, 64},   {2, 2, 2, 1, 32},   {1, 5, 2, 2, 128},  {1, 33, 4, 2, 64},
                       {2, 64, 2, 2, 32},  {1, 65, 2, 1, 96},  {1, 127, 1, 1, 64}, {1, 128, 2, 1, 128},
                       {2, 129, 2, 2, 64}, {1, 200, 3, 1, 96}, {1, 257, 2, 2, 32}, {1, 290, 1, 1, 128},
                       {1, 40, 2, 1, 80},  {2, 7, 4, 2, 6},    {1, 131, 2, 1, 10}, {1, 9, 1, 1, 200}};
  for (const Sizes& size : all)
    for (const AttentionPath path : kPaths) {
      // The row kernels, which are slow to emulate, do nothing more there than below.
      if ((path == AttentionPath::reference || GetParam() == DType::f32) && size.T > 132) continue;
      Problem p(size, GetParam());
      p.twins.run(p.forward_op(path));
      p.expect_forward(path);
      p.twins.run(p.backward_op(path));
      EXPECT_TRUE(close(p.twins, p.dqkv)) << text(size, GetParam(), path);
    }
}

// Gradients are bounded one head and part at a time, so that a small one among large ones shows.
TEST_P(AttentionCuda, EveryGradientIsCloseByItself) {
  const Sizes size{1, 150, 4, 2, 64};
  Problem p(size, GetParam());
  p.twins.run(p.forward_op(AttentionPath::fused));
  p.twins.run(p.backward_op(AttentionPath::fused));
  const auto got = Tensors::to_doubles(p.twins.fetch(p.dqkv.cuda)), want = Tensors::to_doubles(p.dqkv.cpu);
  const int64_t columns = p.dqkv.cpu.shape[1];
  for (int64_t head = 0; head < size.H + 2 * size.K; ++head) {
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < size.T; ++i)
      for (int64_t d = 0; d < size.D; ++d) {
        const auto at = static_cast<size_t>(i * columns + head * size.D + d);
        worst = std::max(worst, std::abs(got[at] - want[at]));
        largest = std::max(largest, std::abs(want[at]));
      }
    EXPECT_LT(worst, testing::cuda_tolerance(GetParam()) * largest) << "head " << head;
  }
}

TEST_P(AttentionCuda, FewQueriesAreTheLastRows) {
  // Up to 4 queries go row by row, their keys in as many parts as 256 of them allow: 3 of 513 keys, of which
  // row 0 of 4 sees none of the last part.
  for (const Sizes& size :
       {Sizes{2, 200, 4, 2, 64, 1}, Sizes{1, 513, 2, 1, 64, 4}, Sizes{1, 700, 1, 1, 32, 2},
        Sizes{1, 600, 1, 1, 10, 3}, Sizes{1, 70, 2, 1, 32, 5}, Sizes{1, 100, 1, 1, 64, 38},
        Sizes{1, 90, 1, 1, 96, 60}, Sizes{1, 300, 1, 1, 96, 65}, Sizes{1, 133, 2, 1, 128, 132}})
    for (const AttentionPath path : kPaths) {
      Problem p(size, GetParam());
      p.twins.run(p.forward_op(path));
      p.expect_forward(path);
    }
}

TEST_P(AttentionCuda, RowsAtOddAddresses) {
  for (const int64_t gap : {1, 4}) {
    const Sizes size{2, 21, 4, 2, 32};
    Problem p(size, GetParam(), 1, gap);
    p.twins.run(p.forward_op(AttentionPath::fused));
    p.expect_forward(AttentionPath::fused);
    p.twins.run(p.backward_op(AttentionPath::fused));
    EXPECT_TRUE(close(p.twins, p.dqkv)) << gap;
    // What belongs to nobody stays as it was.
    const auto all = Tensors::to_doubles(p.twins.fetch(p.dqkv.cuda));
    const int64_t columns = p.dqkv.cpu.shape[1];
    for (size_t i = 0; i < all.size(); ++i)
      ASSERT_EQ(std::isnan(all[i]), static_cast<int64_t>(i) % columns >= columns - gap) << i;
  }
}

// As SSMax with a large s makes them: scores of 1e4, and weights that are 0 and 1.
TEST_P(AttentionCuda, LargeScoresStayFinite) {
  for (const AttentionPath path : kPaths)
    for (const int64_t T_q : {3, 150}) {
      const Sizes size{1, 150, 2, 1, 64, T_q};
      Problem p(size, GetParam(), 60);
      p.twins.run(p.forward_op(path));
      const auto lse = Tensors::to_doubles(p.lse.cpu);
      EXPECT_GT(*std::max_element(lse.begin(), lse.end()), 8e3);
      // A float's own rounding of scores of 1e4 shows as 1e-3 in the weights.
      EXPECT_TRUE(close(p.twins, p.out, 2e-2)) << text(size, GetParam(), path);
      EXPECT_TRUE(close(p.twins, p.lse)) << text(size, GetParam(), path);
      if (T_q != 150) continue;
      p.twins.run_on_cuda(p.backward_op(path));
      for (const double x : Tensors::to_doubles(p.twins.fetch(p.dqkv.cuda))) ASSERT_TRUE(std::isfinite(x));
    }
}

// Not a number in a query, in a key, an infinite key, values: they reach the rows that see them, of their
// head.
TEST_P(AttentionCuda, WhatIsNotFiniteReachesTheRowsThatSeeIt) {
  constexpr int64_t kQ = 0, kKey = 1;
  for (const AttentionPath path : kPaths)
    for (const auto& [place, value] :
         {std::pair{kQ, NAN}, {kKey, NAN}, {kKey, INFINITY}, {int64_t{2}, NAN}}) {
      const Sizes size{1, 150, 2, 2, 32};
      Problem p(size, GetParam());
      const int64_t row = 70, columns = place == 2 ? 6 * 32 : 4 * 32;
      if (std::isinf(value))  // every score of the key is plus infinity
        for (int64_t i = 0; i < size.T; ++i) p.set(p.qk, i * columns, 1);
      p.set(place == 2 ? p.qkv : p.qk, row * columns + place * 64, value);
      p.twins.run_on_cuda(p.forward_op(path));
      const auto out = Tensors::to_doubles(p.twins.fetch(p.out.cuda));
      for (int64_t i = 0; i < size.T; ++i) {
        const bool reached = std::isnan(out[static_cast<size_t>(i * 64)]);
        if (place == kQ)
          EXPECT_EQ(reached, i == row) << i << " " << text(size, GetParam(), path);
        else if (place == kKey)
          EXPECT_EQ(reached, i >= row) << i << " " << text(size, GetParam(), path);
        else if (path == AttentionPath::reference && i < 64)
          EXPECT_FALSE(reached) << i;
        else  // times a weight of 0 it reaches rows before it too that are computed together with such as see
              // it
          EXPECT_TRUE(reached || i < row) << i;
        EXPECT_FALSE(std::isnan(out[static_cast<size_t>(i * 64 + 32)])) << i;
      }
    }
}

// The largest score of the first tiles is minus infinity: their weights are 0, not NaN, for rows that see
// more.
TEST_P(AttentionCuda, ScoresOfMinusInfinityAreWeightsOfZero) {
  for (const AttentionPath path : kPaths)
    for (const int64_t T_q : {3, 150}) {
      const Sizes size{1, 150, 1, 1, 32, T_q};
      Problem p(size, GetParam());
      for (int64_t i = 0; i < size.T; ++i) p.set(p.qk, i * 64, 1);            // column 0 of the queries
      for (int64_t j = 0; j < 140; ++j) p.set(p.qk, j * 64 + 32, -INFINITY);  // and of the first keys
      p.twins.run(p.forward_op(path));
      const auto got = Tensors::to_doubles(p.twins.fetch(p.out.cuda)), want = Tensors::to_doubles(p.out.cpu);
      for (int64_t i = 0; i < T_q; ++i)
        for (int64_t d = 0; d < 32; ++d) {
          const auto at = static_cast<size_t>(i * 32 + d);
          if (size.T - T_q + i < 140)
            EXPECT_TRUE(std::isnan(got[at])) << i;
          else
            EXPECT_NEAR(got[at], want[at], 3 * testing::cuda_tolerance(GetParam())) << i;
        }
    }
}

TEST_P(AttentionCuda, WorksWithoutLse) {
  for (const int64_t T_q : {1, 90}) {
    const Sizes size{2, 90, 4, 2, 32, T_q};
    Problem with(size, GetParam()), without(size, GetParam());
    with.twins.run_on_cuda(with.forward_op(AttentionPath::fused));
    without.twins.run_on_cuda([&](Context& ctx, auto on) {
      const ConstTensor rows = on(without.qk);
      attention(ctx, {.out = on(without.out),
                      .lse = Tensor{},
                      .q = without.queries(rows),
                      .k = heads(rows, size.B, size.H, size.K, size.D),
                      .v = heads(ConstTensor(on(without.qkv)), size.B, size.H + size.K, size.K, size.D)});
    });
    EXPECT_EQ(Tensors::to_doubles(with.twins.fetch(with.out.cuda)),
              Tensors::to_doubles(without.twins.fetch(without.out.cuda)));
  }
}

TEST_P(AttentionCuda, SameBitsEveryTime) {
  for (const AttentionPath path : kPaths)
    for (const Sizes& size : {Sizes{1, 140, 2, 1, 64}, Sizes{1, 600, 2, 1, 32, 2}}) {
      Problem p(size, GetParam());
      p.twins.expect_repeats(p.forward_op(path), {p.out, p.lse});
      if (size.T_q == 0) p.twins.expect_repeats(p.backward_op(path), {p.dqkv});
    }
}

// On a machine that has it. Everywhere else cuDNN's path is the fused one.
TEST_P(AttentionCuda, CudnnEqualsTheCpu) {
  if (const std::string refusal = cudnn_refusal(Device::cuda, GetParam(), 64); !refusal.empty())
    GTEST_SKIP() << "cuDNN: " << refusal;
  for (const Sizes& size : {Sizes{1, 64, 2, 2, 64}, Sizes{2, 129, 4, 2, 64}, Sizes{3, 200, 6, 2, 128},
                            Sizes{1, 1024, 2, 1, 32}, Sizes{2, 333, 2, 2, 96}}) {
    Problem p(size, GetParam());
    p.twins.run(p.forward_op(AttentionPath::cudnn));
    p.expect_forward(AttentionPath::cudnn);
    for (const bool deterministic : {false, true}) {
      p.twins.run(p.backward_op(AttentionPath::cudnn, deterministic));
      EXPECT_TRUE(close(p.twins, p.dqkv))
          << text(size, GetParam(), AttentionPath::cudnn) << " " << deterministic;
    }
    p.twins.expect_repeats(p.forward_op(AttentionPath::cudnn), {p.out, p.lse});
    p.twins.expect_repeats(p.backward_op(AttentionPath::cudnn, true), {p.dqkv});
  }
}

// cuDNN's path computes what cuDNN does not take: other types, few queries, odd addresses.
TEST_P(AttentionCuda, CudnnsPathTakesEverything) {
  for (const auto& [size, gap] :
       {std::pair{Sizes{1, 40, 2, 1, 10}, 0}, {Sizes{1, 40, 2, 1, 64, 1}, 0}, {Sizes{1, 40, 2, 1, 64}, 1}}) {
    Problem p(size, GetParam(), 1, gap);
    p.twins.run(p.forward_op(AttentionPath::cudnn));
    p.expect_forward(AttentionPath::cudnn);
    if (size.T_q != 0) continue;
    p.twins.run(p.backward_op(AttentionPath::cudnn));
    EXPECT_TRUE(close(p.twins, p.dqkv)) << text(size, GetParam(), AttentionPath::cudnn);
  }
}

// What is taken while planning is enough, and linear in T.
TEST_P(AttentionCuda, ScratchIsLinearInT) {
  const auto peak = [&](AttentionPath path, int64_t T, int64_t T_q, bool backward) {
    Context ctx(Device::cuda);
    ctx.planning = true;
    Tensor rows{}, out{}, lse{};
    rows.device = out.device = lse.device = Device::cuda;
    rows.dtype = out.dtype = GetParam();
    rows.shape = {T, 3 * 64};
    out.shape = {T_q, 64};
    lse.shape = {1, 1, T_q};
    ConstHeads q = heads(ConstTensor(rows), 1, 0, 1, 64);
    q.T = T_q;
    const ConstHeads k = heads(ConstTensor(rows), 1, 1, 1, 64), v = heads(ConstTensor(rows), 1, 2, 1, 64);
    const Heads to = heads(rows, 1, 0, 1, 64);
    if (backward)
      attention_backward(ctx, {.dq = to,
                               .dk = to,
                               .dv = to,
                               .dout = out,
                               .out = out,
                               .lse = lse,
                               .q = q,
                               .k = k,
                               .v = v,
                               .path = path});
    else
      attention(ctx, {.out = out, .lse = lse, .q = q, .k = k, .v = v, .path = path});
    return ctx.scratch.peak();
  };
  for (const AttentionPath path : kPaths) {
    EXPECT_EQ(peak(path, 4096, 4096, false), 0);
    EXPECT_EQ(peak(path, 4096, 4096, true), 4 * peak(path, 1024, 1024, true));
    EXPECT_LE(peak(path, 4096, 1, false), 4 * peak(path, 1024, 1, false));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AttentionCuda, testing::kCudaTypes, testing::type_name);

}  // namespace
}  // namespace keen::ops
