#include "ops/linear.h"

#include "ops/gemm.h"

namespace keen::ops {

namespace {

void check_shapes(ConstTensor y, ConstTensor x, ConstTensor w, ConstTensor bias) {
  const auto [rows, in] = dims<2>(x);
  const auto [out, w_in] = dims<2>(w);
  expect(w, {out, in}, x.dtype, "linear: w (O, I)");
  expect(y, {rows, out}, y.dtype, "linear: y (N, O)");
  if (bias) expect(bias, {out}, wide(x.dtype), "linear: bias (O)");
}

}  // namespace

void linear(Context& ctx, Tensor y, ConstTensor x, ConstTensor w, ConstTensor bias) {
  check(y.dtype == x.dtype || y.dtype == wide(x.dtype), "linear: y must be of x's type or the wide type");
  check_shapes(y, x, w, bias);
  gemm(ctx, {.c = y, .a = x, .b = w, .bias = bias, .transpose_b = true});
}

void linear_gelu(Context& ctx, Tensor y, Tensor z, ConstTensor x, ConstTensor w, ConstTensor bias) {
  check_shapes(z, x, w, bias);
  expect(z, z.shape, x.dtype, "linear_gelu: z");
  expect(y, z.shape, x.dtype, "linear_gelu: y");
  gemm(ctx, {.c = y, .a = x, .b = w, .bias = bias, .transpose_b = true, .gelu_input = z});
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
  if (args.x_is_gelu_of) expect(args.x_is_gelu_of, {rows, in}, type, "linear_backward: x_is_gelu_of (N, I)");

  if (args.dx) gemm(ctx, {.c = args.dx, .a = args.dy, .b = args.w, .gelu_at = args.x_is_gelu_of});
  gemm(ctx, {.c = args.dw,
             .a = args.dy,
             .b = args.x,
             .transpose_a = true,
             .accumulate = true,
             .a_sums = args.dbias});
}

}  // namespace keen::ops
