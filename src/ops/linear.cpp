#include "ops/linear.h"

#include "ops/column_sums.h"
#include "ops/gemm.h"

namespace keen::ops {

void linear(Context& ctx, Tensor y, ConstTensor x, ConstTensor w, ConstTensor bias) {
  const auto [rows, in] = dims<2>(x);
  const auto [out, w_in] = dims<2>(w);
  check(y.dtype == x.dtype || y.dtype == wide(x.dtype), "linear: y must be of x's type or the wide type");
  expect(w, {out, in}, x.dtype, "linear: w (O, I)");
  expect(y, {rows, out}, y.dtype, "linear: y (N, O)");
  if (bias) expect(bias, {out}, wide(x.dtype), "linear: bias (O)");
  gemm(ctx, {.c = y, .a = x, .b = w, .bias = bias, .transpose_b = true});
}

void linear_backward(Context& ctx, const LinearBackward& args) {
  const auto [rows, in] = dims<2>(args.x);
  const auto [dy_rows, out] = dims<2>(args.dy);
  const DType type = args.x.dtype;
  expect(args.dy, {rows, out}, type, "linear_backward: dy (N, O)");
  expect(args.w, {out, in}, type, "linear_backward: w (O, I)");
  expect(args.dw, {out, in}, wide(type), "linear_backward: dw (O, I)");
  if (args.dx) expect(args.dx, {rows, in}, type, "linear_backward: dx (N, I)");
  if (args.dbias) expect(args.dbias, {out}, wide(type), "linear_backward: dbias (O)");

  if (args.dx) gemm(ctx, {.c = args.dx, .a = args.dy, .b = args.w});
  gemm(ctx, {.c = args.dw, .a = args.dy, .b = args.x, .transpose_a = true, .accumulate = true});
  if (!args.dbias) return;
  ScratchScope scope(ctx);
  const Tensor partial = take_partial_sums(ctx, rows, out, wide(type));
  on_device(ctx, [&]<Device D>() { add_column_sums_on<D>(ctx, args.dbias, args.dy, partial); });
}

template <> void add_column_sums_on<Device::cpu>(Context&, Tensor sums, ConstTensor x, Tensor partial) {
  with_float_type(x.dtype, [&]<class T>() {
    using W = Wide<T>;
    const auto [rows, columns] = dims<2>(x);
    const int64_t width = columns;
    const T* px = x.as<T>();
    sum_rows<W>(partial, rows, [=](int64_t begin, int64_t end, W* __restrict sum) {
      for (int64_t i = begin; i < end; ++i) {
        const T* __restrict row = px + i * width;
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) sum[j] += W(row[j]);
      }
    });
    add_partial_sums<W>(sums, partial, 0);
  });
}

}  // namespace keen::ops
