#include "ops/rmsnorm.h"

#include "ops/add_rows.h"
#include "ops/column_sums.h"
#include "ops/rmsnorm_row.h"

namespace keen::ops {

namespace {
constexpr int64_t kGrain = 1 << 14;  // elements worth a thread of their own
}

void rmsnorm(Context& ctx, const RmsNorm& args) {
  const auto [N, C] = dims<2>(args.x);
  const DType dtype = args.x.dtype;
  expect(args.y, args.x.shape, dtype, "rmsnorm: y (N, C)");
  expect(args.rstd, {N}, wide(dtype), "rmsnorm: rstd (N)");
  expect(args.w, {C}, wide(dtype), "rmsnorm: w (C)");
  check(static_cast<bool>(args.branch) == static_cast<bool>(args.sum), "rmsnorm: branch and sum, or neither");
  if (args.branch) expect(args.branch, args.x.shape, dtype, "rmsnorm: branch (N, C)");
  if (args.sum) expect(args.sum, args.x.shape, dtype, "rmsnorm: sum (N, C)");
  on_device(ctx, [&]<Device D>() { rmsnorm_on<D>(ctx, args); });
}

void rmsnorm_backward(Context& ctx, const RmsNormBackward& args) {
  const auto [N, C] = dims<2>(args.x);
  const DType dtype = args.x.dtype;
  expect(args.dx, args.x.shape, dtype, "rmsnorm_backward: dx (N, C)");
  expect(args.dy, args.x.shape, dtype, "rmsnorm_backward: dy (N, C)");
  if (args.dresidual) expect(args.dresidual, args.x.shape, dtype, "rmsnorm_backward: dresidual (N, C)");
  expect(args.dw, {C}, wide(dtype), "rmsnorm_backward: dw (C)");
  expect(args.w, {C}, wide(dtype), "rmsnorm_backward: w (C)");
  expect(args.rstd, {N}, wide(dtype), "rmsnorm_backward: rstd (N)");
  ScratchScope scope(ctx);
  const Tensor partial = take_partial_sums(ctx, N, C, wide(dtype));
  on_device(ctx, [&]<Device D>() { rmsnorm_backward_on<D>(ctx, args, partial); });
}

template <> void rmsnorm_on<Device::cpu>(Context&, const RmsNorm& args) {
  with_float_type(args.x.dtype, [&]<class T>() {
    using W = Wide<T>;
    const int64_t C = args.x.shape[1];
    T *y = args.y.as<T>(), *sum = args.sum ? args.sum.as<T>() : nullptr;
    W* rstd = args.rstd.as<W>();
    const T *x = args.x.as<T>(), *branch = args.branch ? args.branch.as<T>() : nullptr;
    const W *w = args.w.as<W>(), eps = W(args.eps);
    parallel_for(args.x.shape[0], kGrain / std::max<int64_t>(C, 1) + 1, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* from = add_rows<T>(sum, x, branch, row, C);
        rstd[row] = rmsnorm_row<T>(y + row * C, from, w, C, eps);
      }
    });
  });
}

template <> void rmsnorm_backward_on<Device::cpu>(Context&, const RmsNormBackward& args, Tensor partial) {
  with_float_type(args.x.dtype, [&]<class T>() {
    using W = Wide<T>;
    const auto [N, width] = dims<2>(args.x);
    const int64_t C = width;
    T* dx = args.dx.as<T>();
    const T *dy = args.dy.as<T>(), *x = args.x.as<T>();
    const T* past = args.dresidual ? args.dresidual.as<T>() : nullptr;
    const W *w = args.w.as<W>(), *rstd = args.rstd.as<W>();
    sum_rows<W>(partial, N, [=](int64_t begin, int64_t end, W* dw) {
      for (int64_t row = begin; row < end; ++row)
        rmsnorm_row_backward<T>(dx + row * C, dw, dy + row * C, x + row * C, w, rstd[row], C,
                                past == nullptr ? nullptr : past + row * C);
    });
    add_partial_sums<W>(args.dw, partial, 0);
  });
}

}  // namespace keen::ops
