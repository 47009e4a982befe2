#include "ops/attention.h"

#include <omp.h>

#include <numeric>
#include <string>

#include "op_test.h"
#include "ops/copy_heads.h"

namespace keen::ops {
namespace {

using testing::gradient_error;
using testing::prepare;
using testing::relative_error;
using testing::Tensors;

constexpr AttentionPath kPaths[] = {AttentionPath::reference, AttentionPath::fused};

struct Sizes {
  int64_t B, T, H, K, D;
  int64_t T_q = 0;  // 0: T
  int64_t queries() const { return T_q == 0 ? T : T_q; }
};
std::string text(const Sizes& s, DType dtype, AttentionPath path) {
  return fmt::format("B {} T {} T_q {} H {} K {} D {} {} {}", s.B, s.T, s.queries(), s.H, s.K, s.D,
                     name_of(dtype), path == AttentionPath::fused ? "fused" : "reference");
}

const Sizes kSizes[] = {
    {1, 1, 1, 1, 2},   {2, 2, 6, 3, 6},     {1, 63, 6, 6, 32},  {3, 64, 6, 2, 64},  {1, 65, 6, 1, 96},
    {2, 129, 6, 3, 6}, {1, 200, 2, 1, 128}, {2, 200, 6, 2, 2},  {1, 130, 2, 2, 80}, {1, 257, 2, 1, 48},
    {3, 17, 6, 6, 10}, {2, 81, 4, 1, 24},   {1, 199, 4, 2, 16}, {1, 97, 2, 2, 7},
};

// The largest relative error of outputs and gradients.
double tolerance(DType dtype) { return dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 5e-6 : 1e-2; }

// Tensors as training with RoPE has them: q and k in (N, (H + K) D), v in the last columns of (N, (H + 2K)
// D).
struct Problem {
  Sizes size;
  DType dtype;
  Tensors own;
  Tensor qk, qkv, out, lse, dout, dqkv;

  Problem(const Sizes& s, DType type, double scale = 1) : size(s), dtype(type) {
    const int64_t N = s.B * s.T, rows = s.B * s.queries();
    qk = own.normal({N, (s.H + s.K) * s.D}, dtype, scale);
    qkv = own.normal({N, (s.H + 2 * s.K) * s.D}, dtype);
    dout = own.normal({rows, s.H * s.D}, dtype);
    out = own.poisoned({rows, s.H * s.D}, dtype);
    lse = own.poisoned({s.B, s.H, s.queries()}, wide(dtype));
    dqkv = own.poisoned({N, (s.H + 2 * s.K) * s.D}, dtype);
  }
  ConstHeads q() const {
    ConstHeads all = heads(ConstTensor(qk), size.B, 0, size.H, size.D);
    all.T = size.queries();  // the last T_q tokens
    all.data += (size.T - size.queries()) * all.token_stride * size_of(dtype);
    return all;
  }
  ConstHeads k() const { return heads(ConstTensor(qk), size.B, size.H, size.K, size.D); }
  ConstHeads v() const { return heads(ConstTensor(qkv), size.B, size.H + size.K, size.K, size.D); }
  Attention forward_args(AttentionPath path) const {
    return {.out = out, .lse = lse, .q = q(), .k = k(), .v = v(), .path = path};
  }
  AttentionBackward backward_args(AttentionPath path) const {
    return {.dq = heads(dqkv, size.B, 0, size.H, size.D),
            .dk = heads(dqkv, size.B, size.H, size.K, size.D),
            .dv = heads(dqkv, size.B, size.H + size.K, size.K, size.D),
            .dout = dout,
            .out = out,
            .lse = lse,
            .q = q(),
            .k = k(),
            .v = v(),
            .path = path};
  }
  void forward(AttentionPath path) {
    Context ctx;
    const auto run = [&] { attention(ctx, forward_args(path)); };
    testing::prepare(ctx, run);
    run();
  }
  void backward(AttentionPath path) {
    Context ctx;
    const auto run = [&] { attention_backward(ctx, backward_args(path)); };
    testing::prepare(ctx, run);
    run();
  }
};

double at(const ConstHeads& x, int64_t b, int64_t t, int64_t h, int64_t d) {
  return with_float_type(x.dtype, [&]<class T>() {
    return static_cast<double>(Wide<T>(x.as<T>()[b * x.sequence_stride + t * x.token_stride + h * x.D + d]));
  });
}

// Attention as in a textbook: all T_q x T_k scores in float64, one softmax a row.
struct Naive {
  std::vector<double> out, lse;
  explicit Naive(const Problem& p) {
    const ConstHeads q = p.q(), k = p.k(), v = p.v();
    const int64_t H = q.heads, D = q.D, group = H / k.heads, hidden = k.T - q.T;
    out.resize(static_cast<size_t>(q.B * q.T * H * D));
    lse.resize(static_cast<size_t>(q.B * H * q.T));
    for (int64_t b = 0; b < q.B; ++b)
      for (int64_t h = 0; h < H; ++h) {
        std::vector<double> score(static_cast<size_t>(q.T * k.T), -INFINITY);
        for (int64_t i = 0; i < q.T; ++i)
          for (int64_t j = 0; j <= hidden + i; ++j) {
            double sum = 0;
            for (int64_t d = 0; d < D; ++d) sum += at(q, b, i, h, d) * at(k, b, j, h / group, d);
            score[static_cast<size_t>(i * k.T + j)] = sum / std::sqrt(static_cast<double>(D));
          }
        for (int64_t i = 0; i < q.T; ++i) {
          double* row = score.data() + i * k.T;
          const double largest = *std::max_element(row, row + k.T);
          double total = 0;
          for (int64_t j = 0; j < k.T; ++j) total += row[j] = std::exp(row[j] - largest);
          lse[static_cast<size_t>((b * H + h) * q.T + i)] = largest + std::log(total);
          for (int64_t d = 0; d < D; ++d) {
            double sum = 0;
            for (int64_t j = 0; j < k.T; ++j) sum += row[j] / total * at(v, b, j, h / group, d);
            out[static_cast<size_t>(((b * q.T + i) * H + h) * D + d)] = sum;
          }
        }
      }
  }
};

// The largest |difference| relative to the largest expected value; NaN counts as infinite.
double error(ConstTensor got, const std::vector<double>& want) {
  const auto x = Tensors::to_doubles(got);
  EXPECT_EQ(x.size(), want.size());
  double worst = 0, size = 1e-30;
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = std::abs(x[i] - want[i]);
    worst = difference <= worst ? worst : std::isnan(difference) ? INFINITY : difference;
    size = std::max(size, std::abs(want[i]));
  }
  return worst / size;
}

TEST(Attention, EqualsTheTextbook) {
  for (const AttentionPath path : kPaths)
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (const Sizes& size : kSizes) {
        Problem p(size, dtype);
        p.forward(path);
        const Naive naive(p);
        EXPECT_LT(error(p.out, naive.out), tolerance(dtype)) << text(size, dtype, path);
        EXPECT_LT(error(p.lse, naive.lse), tolerance(wide(dtype))) << text(size, dtype, path);
      }
}

// SSMax without RoPE has its scaled queries in (N, H D), and its keys elsewhere.
TEST(Attention, QueriesMayLieInRowsOfTheirOwn) {
  for (const AttentionPath path : kPaths)
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const Sizes size{2, 129, 6, 3, 6};
      Problem together(size, dtype), apart(size, dtype);
      const Tensor q = apart.own.zeros({size.B * size.T, size.H * size.D}, dtype);
      const Heads own_rows = heads(q, size.B, 0, size.H, size.D);
      Context ctx;
      copy_heads(ctx, own_rows, apart.q());
      Attention forward = apart.forward_args(path);
      AttentionBackward backward = apart.backward_args(path);
      forward.q = backward.q = own_rows;
      const auto run = [&] {
        attention(ctx, forward);
        attention_backward(ctx, backward);
      };
      prepare(ctx, run);
      run();
      together.forward(path);
      together.backward(path);
      for (const auto& [a, b] :
           {std::pair{apart.out, together.out}, {apart.lse, together.lse}, {apart.dqkv, together.dqkv}})
        EXPECT_EQ(Tensors::to_doubles(a), Tensors::to_doubles(b)) << text(size, dtype, path);
    }
}

TEST(Attention, FewQueriesAreTheLastRows) {
  for (const AttentionPath path : kPaths)
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (const Sizes& size :
           {Sizes{2, 200, 6, 2, 64, 1}, Sizes{1, 129, 6, 3, 6, 4}, Sizes{1, 70, 4, 2, 20, 3},
            Sizes{2, 70, 4, 4, 32, 5}, Sizes{1, 300, 2, 1, 96, 65}, Sizes{1, 101, 2, 1, 64, 64},
            Sizes{2, 67, 6, 1, 2, 66}}) {
        Problem p(size, dtype);
        p.forward(path);
        const Naive naive(p);
        EXPECT_LT(error(p.out, naive.out), tolerance(dtype)) << text(size, dtype, path);
        EXPECT_LT(error(p.lse, naive.lse), tolerance(wide(dtype))) << text(size, dtype, path);

        Sizes whole = size;
        whole.T_q = 0;
        Problem full(whole, dtype);  // the same numbers in q, k and v
        full.forward(path);
        const auto rows = Tensors::to_doubles(full.out);
        std::vector<double> last;
        const int64_t width = size.H * size.D;
        for (int64_t b = 0; b < size.B; ++b)
          last.insert(last.end(), rows.begin() + ((b + 1) * size.T - size.T_q) * width,
                      rows.begin() + (b + 1) * size.T * width);
        EXPECT_LT(error(p.out, last), tolerance(dtype)) << text(size, dtype, path);
      }
}

TEST(Attention, WorksWithoutLse) {
  for (const AttentionPath path : kPaths)
    for (const int64_t T_q : {1, 90}) {
      Problem with({2, 90, 4, 2, 32, T_q}, DType::f32), without({2, 90, 4, 2, 32, T_q}, DType::f32);
      with.forward(path);
      without.lse = Tensor{};
      without.forward(path);
      EXPECT_EQ(Tensors::to_doubles(with.out), Tensors::to_doubles(without.out));
    }
}

// Queries and keys of length 100 sqrt(D): scores reach 1e4, as SSMax with a large s makes them.
TEST(Attention, LargeScoresStayFinite) {
  for (const AttentionPath path : kPaths)
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (const int64_t T_q : {3, 150}) {
        const Sizes size{1, 150, 2, 1, 64, T_q};
        Problem p(size, dtype, 60);
        p.forward(path);
        const Naive naive(p);
        EXPECT_GT(*std::max_element(naive.lse.begin(), naive.lse.end()), 8e3);
        // A float's own rounding of scores of 1e4 shows as 1e-3 in the weights.
        EXPECT_LT(error(p.out, naive.out), dtype == DType::f64 ? 1e-9 : 2e-2) << text(size, dtype, path);
        EXPECT_LT(error(p.lse, naive.lse), tolerance(wide(dtype))) << text(size, dtype, path);
        if (T_q != 150) continue;
        p.backward(path);
        for (const double x : Tensors::to_doubles(p.dqkv))
          ASSERT_TRUE(std::isfinite(x)) << text(size, dtype, path);
      }
}

// Scores of 1e9, whose last bit is 64: a weight is at most 1 all the same, whether 1 / sqrt(D) is a power of
// two or not, so that nothing overflows.
TEST(Attention, HugeScoresStayFinite) {
  const AttentionPath path = AttentionPath::fused;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int64_t D : {24, 32, 64, 128}) {
      const Sizes size{1, 100, 2, 2, D};
      Problem p(size, dtype, 3e4);
      p.forward(path);
      p.backward(path);
      for (const double x : Tensors::to_doubles(p.out)) ASSERT_LT(std::abs(x), 10) << text(size, dtype, path);
      for (const double x : Tensors::to_doubles(p.dqkv))
        ASSERT_TRUE(std::isfinite(x)) << text(size, dtype, path);
    }
}

TEST(Attention, NaNReachesTheRowsThatSeeIt) {
  for (const AttentionPath path : kPaths)
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Problem p({1, 130, 2, 2, 32}, dtype);
      with_float_type(dtype, [&]<class T>() {  // key 70 of key head 0
        p.qk.as<T>()[70 * 4 * 32 + 2 * 32] = T(std::numeric_limits<Wide<T>>::quiet_NaN());
      });
      p.forward(path);
      const auto out = Tensors::to_doubles(p.out);
      for (int64_t i = 0; i < 130; ++i) {
        EXPECT_EQ(std::isnan(out[static_cast<size_t>(i * 64)]), i >= 70) << i << name_of(dtype);
        EXPECT_FALSE(std::isnan(out[static_cast<size_t>(i * 64 + 32)])) << i << name_of(dtype);
      }
    }
}

TEST(AttentionBackward, EqualsCentralDifferences) {
  for (const AttentionPath path : kPaths)
    for (const Sizes& size : kSizes) {
      Problem p(size, DType::f64);
      p.forward(path);
      p.backward(path);
      Problem moved(size, DType::f64);  // the same numbers, moved one at a time
      Context ctx;
      const auto forward = [&] { attention(ctx, moved.forward_args(path)); };
      testing::prepare(ctx, forward);
      const auto loss = [&] {
        forward();
        return testing::dot(moved.out, p.dout);
      };
      // Gradients of q and k lie side by side in dqkv as their values do in qk; those of v behind them, as v
      // in qkv.
      const int64_t N = size.B * size.T, D = size.D, qk_columns = (size.H + size.K) * D,
                    columns = (size.H + 2 * size.K) * D;
      Tensors t;
      Tensor dqk = t.poisoned({N, qk_columns}), dv = t.zeros({N, columns});
      for (int64_t row = 0; row < N; ++row)
        for (int64_t c = 0; c < columns; ++c) {
          const double g = p.dqkv.as<double>()[row * columns + c];
          if (c < qk_columns)
            dqk.as<double>()[row * qk_columns + c] = g;
          else
            dv.as<double>()[row * columns + c] = g;
        }
      for (const auto& [x, gradient] : {std::pair{moved.qk, dqk}, {moved.qkv, dv}}) {
        int64_t most = size.T > 60 ? 20 : 60;  // elements, at a stride that meets every column
        while (std::gcd(x.count() / std::min(most, x.count()), x.shape[1]) != 1) ++most;
        EXPECT_LT(gradient_error(loss, x, gradient, most), 1e-7) << text(size, DType::f64, path);
      }
    }
}

TEST(AttentionBackward, EveryTypeAndPathAgrees) {
  for (const Sizes& size : kSizes) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (const AttentionPath path : kPaths) {
        Problem p(size, dtype), exact(size, DType::f64);
        for (const auto& [to, from] : {std::pair{exact.qk, p.qk}, {exact.qkv, p.qkv}, {exact.dout, p.dout}}) {
          const auto values = Tensors::to_doubles(from);
          Tensors::fill(to, [&](int64_t i) { return values[static_cast<size_t>(i)]; });
        }
        p.forward(path);
        p.backward(path);
        exact.forward(AttentionPath::reference);
        exact.backward(AttentionPath::reference);
        // delta is taken from `out` as it was rounded, so that bf16 carries that rounding into dq and dk.
        EXPECT_LT(relative_error(p.dqkv, exact.dqkv), tolerance(dtype)) << text(size, dtype, path);
      }
  }
}

// Key heads from 1 to 6 on 1 and 2 threads: the fused backward pass shares out its work in both of its ways.
TEST(AttentionBackward, SameBitsOnAnyNumberOfThreads) {
  const int before = omp_get_max_threads();
  for (const AttentionPath path : kPaths)
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Sizes& size : {Sizes{1, 200, 6, 1, 64}, Sizes{1, 140, 6, 3, 6}, Sizes{2, 129, 4, 4, 32}}) {
        std::vector<std::vector<double>> results;
        for (const int threads : {1, 2, 5}) {
          omp_set_num_threads(threads);
          Problem p(size, dtype);
          p.forward(path);
          p.backward(path);
          auto all = Tensors::to_doubles(p.dqkv);
          for (const Tensor& x : {p.out, p.lse}) {
            const auto more = Tensors::to_doubles(x);
            all.insert(all.end(), more.begin(), more.end());
          }
          results.push_back(std::move(all));
        }
        EXPECT_EQ(results[0], results[1]) << text(size, dtype, path);
        EXPECT_EQ(results[0], results[2]) << text(size, dtype, path);
      }
  omp_set_num_threads(before);
}

TEST(Attention, PlanningMeasuresExactlyTheScratch) {
  for (const AttentionPath path : kPaths)
    for (const int64_t K : {1, 2}) {
      Problem p({1, 100, 2, K, 32}, DType::f32);
      Context planned, run;
      planned.planning = true;
      attention(planned, p.forward_args(path));
      attention_backward(planned, p.backward_args(path));
      for (const double x : Tensors::to_doubles(p.out)) ASSERT_TRUE(std::isnan(x));  // nothing ran
      const int64_t bytes = planned.scratch.peak();
      EXPECT_GT(bytes, 0);
      EXPECT_EQ(planned.scratch.mark(), 0);
      planned.planning = false;
      planned.scratch.allocate("scratch");
      attention(planned, p.forward_args(path));
      attention_backward(planned, p.backward_args(path));
      EXPECT_EQ(planned.scratch.peak(), bytes);
    }
}

TEST(Attention, ScratchIsLinearInT) {
  const auto peak = [](AttentionPath path, int64_t T, bool backward) {
    Problem p({1, T, 2, 1, 8}, DType::bf16);
    Context ctx;
    ctx.planning = true;
    if (backward)
      attention_backward(ctx, p.backward_args(path));
    else
      attention(ctx, p.forward_args(path));
    return ctx.scratch.peak();
  };
  for (const AttentionPath path : kPaths)
    for (const bool backward : {false, true})
      EXPECT_LE(peak(path, 4096, backward), 4 * peak(path, 1024, backward)) << backward;
  EXPECT_EQ(peak(AttentionPath::fused, 4096, false), peak(AttentionPath::fused, 1024, false));
}

TEST(Attention, RefusesOtherShapes) {
  Context ctx;
  ctx.planning = true;
  Problem p({2, 8, 6, 3, 4}, DType::f32);
  const auto refuses = [&](auto change) {
    Attention args = p.forward_args(AttentionPath::fused);
    change(args);
    EXPECT_THROW(attention(ctx, args), Error);
  };
  EXPECT_NO_THROW(attention(ctx, p.forward_args(AttentionPath::fused)));
  refuses([](Attention& a) { a.k.heads = a.v.heads = 4; });  // 6 is no multiple of 4
  refuses([](Attention& a) { a.v.heads = 1; });
  refuses([](Attention& a) { a.k.D = 2; });
  refuses([](Attention& a) { a.v.T = 7; });
  refuses([](Attention& a) { a.k.T = a.v.T = 7; });  // fewer keys than queries
  refuses([](Attention& a) { a.v.B = 1; });
  refuses([](Attention& a) { a.k.dtype = DType::f64; });
  refuses([](Attention& a) { a.out.shape = {8, 24}; });
  refuses([](Attention& a) { a.lse.shape = {2, 8, 6}; });
  refuses([](Attention& a) { a.lse.dtype = DType::f64; });
  refuses([](Attention& a) { a.q.T = 0; });

  const auto backward_refuses = [&](auto change) {
    AttentionBackward args = p.backward_args(AttentionPath::fused);
    change(args);
    EXPECT_THROW(attention_backward(ctx, args), Error);
  };
  EXPECT_NO_THROW(attention_backward(ctx, p.backward_args(AttentionPath::fused)));
  backward_refuses([](AttentionBackward& a) { a.k.heads = a.v.heads = a.dk.heads = a.dv.heads = 4; });
  backward_refuses([](AttentionBackward& a) { a.dk.heads = 6; });
  backward_refuses([](AttentionBackward& a) { a.dq.T = 7; });
  backward_refuses([](AttentionBackward& a) { a.k.T = a.v.T = 9; });
  backward_refuses([](AttentionBackward& a) { a.dv.dtype = DType::bf16; });
  backward_refuses([](AttentionBackward& a) { a.dout.shape = {16, 12}; });
  backward_refuses([](AttentionBackward& a) { a.out.shape = {8, 24}; });
  backward_refuses([](AttentionBackward& a) { a.lse = ConstTensor{}; });
}

}  // namespace
}  // namespace keen::ops
