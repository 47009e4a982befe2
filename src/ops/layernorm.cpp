#include "ops/layernorm.h"

#include <cmath>

#include "ops/add_rows.h"
#include "ops/column_sums.h"

namespace keen::ops {

namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread of their own

template <class W> struct Moments { W mean, rstd; };

// One row forward; `bias` may be null. The variance is taken about the mean, since E[x^2] - mean^2 cancels.
template <class T>
Moments<Wide<T>> layernorm_row(T* y, const T* x, const Wide<T>* w, const Wide<T>* bias, int64_t C,
                               Wide<T> eps) {
  using W = Wide<T>;
  W sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) sum += W(x[c]);
  const W mean = sum / W(C);
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < C; ++c) squares += (W(x[c]) - mean) * (W(x[c]) - mean);
  const W rstd = W(1) / std::sqrt(squares / W(C) + eps);
  if (bias != nullptr) {
    KEEN_INDEPENDENT
    for (int64_t c = 0; c < C; ++c) y[c] = T((W(x[c]) - mean) * rstd * w[c] + bias[c]);
  } else {
    KEEN_INDEPENDENT
    for (int64_t c = 0; c < C; ++c) y[c] = T((W(x[c]) - mean) * rstd * w[c]);
  }
  return {mean, rstd};
}

// One row backward: overwrites dx, adds to dw, and to dbias unless it is null. dx may alias dy or past, which
// may be null: 0.
template <class T>
void layernorm_row_backward(T* dx, Wide<T>* dw, Wide<T>* dbias, const T* dy, const T* x, const Wide<T>* w,
                            Moments<Wide<T>> at, int64_t C, const T* past) {
  using W = Wide<T>;
  W sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
  for (int64_t c = 0; c < C; ++c) {
    const W g = W(dy[c]), z = (W(x[c]) - at.mean) * at.rstd;
    sum += g * w[c];
    along += g * w[c] * z;
    dw[c] += g * z;
  }
  if (dbias != nullptr) {
    KEEN_INDEPENDENT
    for (int64_t c = 0; c < C; ++c) dbias[c] += W(dy[c]);
  }
  const W mean_g = sum / W(C), mean_gz = along / W(C);
  if (past != nullptr) {
    KEEN_INDEPENDENT
    for (int64_t c = 0; c < C; ++c) {
      const W z = (W(x[c]) - at.mean) * at.rstd;
      dx[c] = T(W(past[c]) + at.rstd * (W(dy[c]) * w[c] - mean_g - z * mean_gz));
    }
    return;
  }
  KEEN_INDEPENDENT
  for (int64_t c = 0; c < C; ++c) {
    const W z = (W(x[c]) - at.mean) * at.rstd;
    dx[c] = T(at.rstd * (W(dy[c]) * w[c] - mean_g - z * mean_gz));
  }
}

}  // namespace

void layernorm(Context& ctx, const LayerNorm& args) {
  const auto [N, C] = dims<2>(args.x);
  const DType dtype = args.x.dtype;
  expect(args.y, args.x.shape, dtype, "layernorm: y (N, C)");
  expect(args.mean, {N}, wide(dtype), "layernorm: mean (N)");
  expect(args.rstd, {N}, wide(dtype), "layernorm: rstd (N)");
  expect(args.w, {C}, wide(dtype), "layernorm: w (C)");
  if (args.bias) expect(args.bias, {C}, wide(dtype), "layernorm: bias (C)");
  check(static_cast<bool>(args.branch) == static_cast<bool>(args.sum),
        "layernorm: branch and sum, or neither");
  if (args.branch) expect(args.branch, args.x.shape, dtype, "layernorm: branch (N, C)");
  if (args.sum) expect(args.sum, args.x.shape, dtype, "layernorm: sum (N, C)");
  on_device(ctx, [&]<Device D>() { layernorm_on<D>(ctx, args); });
}

void layernorm_backward(Context& ctx, const LayerNormBackward& args) {
  const auto [N, C] = dims<2>(args.x);
  const DType dtype = args.x.dtype;
  expect(args.dx, args.x.shape, dtype, "layernorm_backward: dx (N, C)");
  expect(args.dy, args.x.shape, dtype, "layernorm_backward: dy (N, C)");
  if (args.dresidual) expect(args.dresidual, args.x.shape, dtype, "layernorm_backward: dresidual (N, C)");
  expect(args.dw, {C}, wide(dtype), "layernorm_backward: dw (C)");
  if (args.dbias) expect(args.dbias, {C}, wide(dtype), "layernorm_backward: dbias (C)");
  expect(args.w, {C}, wide(dtype), "layernorm_backward: w (C)");
  expect(args.mean, {N}, wide(dtype), "layernorm_backward: mean (N)");
  expect(args.rstd, {N}, wide(dtype), "layernorm_backward: rstd (N)");
  ScratchScope scope(ctx);
  const Tensor partial = take_partial_sums(ctx, N, args.dbias ? 2 * C : C, wide(dtype));
  on_device(ctx, [&]<Device D>() { layernorm_backward_on<D>(ctx, args, partial); });
}

template <> void layernorm_on<Device::cpu>(Context&, const LayerNorm& args) {
  with_float_type(args.x.dtype, [&]<class T>() {
    using W = Wide<T>;
    const int64_t C = args.x.shape[1];
    T *y = args.y.as<T>(), *sum = args.sum ? args.sum.as<T>() : nullptr;
    W *mean = args.mean.as<W>(), *rstd = args.rstd.as<W>();
    const T *x = args.x.as<T>(), *branch = args.branch ? args.branch.as<T>() : nullptr;
    const W *w = args.w.as<W>(), *bias = args.bias ? args.bias.as<W>() : nullptr;
    const W eps = W(args.eps);
    parallel_for(args.x.shape[0], kGrain / std::max<int64_t>(C, 1) + 1, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* from = add_rows<T>(sum, x, branch, row, C);
        const Moments<W> moments = layernorm_row<T>(y + row * C, from, w, bias, C, eps);
        mean[row] = moments.mean;
        rstd[row] = moments.rstd;
      }
    });
  });
}

template <> void layernorm_backward_on<Device::cpu>(Context&, const LayerNormBackward& args, Tensor partial) {
  with_float_type(args.x.dtype, [&]<class T>() {
    using W = Wide<T>;
    const int64_t C = args.x.shape[1];
    const bool biased = static_cast<bool>(args.dbias);
    T* dx = args.dx.as<T>();
    const T *dy = args.dy.as<T>(), *x = args.x.as<T>();
    const T* past = args.dresidual ? args.dresidual.as<T>() : nullptr;
    const W *w = args.w.as<W>(), *mean = args.mean.as<W>(), *rstd = args.rstd.as<W>();
    sum_rows<W>(partial, args.x.shape[0], [=](int64_t begin, int64_t end, W* sums) {
      W* dbias = biased ? sums + C : nullptr;
      for (int64_t row = begin; row < end; ++row)
        layernorm_row_backward<T>(dx + row * C, sums, dbias, dy + row * C, x + row * C, w,
                                  {mean[row], rstd[row]}, C, past == nullptr ? nullptr : past + row * C);
    });
    add_partial_sums<W>(args.dw, partial, 0);
    if (biased) add_partial_sums<W>(args.dbias, partial, C);
  });
}

}  // namespace keen::ops
