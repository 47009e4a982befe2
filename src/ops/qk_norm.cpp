#include "ops/qk_norm.h"

#include "ops/column_sums.h"
#include "ops/rmsnorm_row.h"

namespace keen::ops {

namespace {
constexpr int64_t kGrain = 1 << 14;  // elements worth a thread of their own
}

void qk_norm(Context& ctx, const QkNorm& args) {
  const HeadLayout& layout = args.layout;
  const DType dtype = args.qkv.dtype;
  const auto [N, columns] = dims<2>(args.qkv);
  check(columns == layout.qkv_columns(), "qk_norm: qkv (N, (H+2K)D)");
  expect(args.qk, {N, layout.qk_columns()}, dtype, "qk_norm: qk (N, (H+K)D)");
  expect(args.rstd, {N, layout.H + layout.K}, wide(dtype), "qk_norm: rstd (N, H+K)");
  expect(args.q_weight, {layout.D}, wide(dtype), "qk_norm: q_weight (D)");
  expect(args.k_weight, {layout.D}, wide(dtype), "qk_norm: k_weight (D)");
  on_device(ctx, [&]<Device Dev>() { qk_norm_on<Dev>(ctx, args); });
}

void qk_norm_backward(Context& ctx, const QkNormBackward& args) {
  const HeadLayout& layout = args.layout;
  const DType dtype = args.qkv.dtype;
  const auto [N, columns] = dims<2>(args.qkv);
  check(columns == layout.qkv_columns(), "qk_norm_backward: qkv (N, (H+2K)D)");
  expect(args.dqkv, args.qkv.shape, dtype, "qk_norm_backward: dqkv (N, (H+2K)D)");
  expect(args.rstd, {N, layout.H + layout.K}, wide(dtype), "qk_norm_backward: rstd (N, H+K)");
  expect(args.q_weight, {layout.D}, wide(dtype), "qk_norm_backward: q_weight (D)");
  expect(args.k_weight, {layout.D}, wide(dtype), "qk_norm_backward: k_weight (D)");
  expect(args.dq_weight, {layout.D}, wide(dtype), "qk_norm_backward: dq_weight (D)");
  expect(args.dk_weight, {layout.D}, wide(dtype), "qk_norm_backward: dk_weight (D)");
  ScratchScope scope(ctx);
  const Tensor partial = take_partial_sums(ctx, N, 2 * layout.D, wide(dtype));
  on_device(ctx, [&]<Device Dev>() { qk_norm_backward_on<Dev>(ctx, args, partial); });
}

template <> void qk_norm_on<Device::cpu>(Context&, const QkNorm& args) {
  with_float_type(args.qkv.dtype, [&]<class T>() {
    using W = Wide<T>;
    const HeadLayout layout = args.layout;
    const int64_t D = layout.D, heads = layout.H + layout.K;
    T* qk = args.qk.as<T>();
    W* rstd = args.rstd.as<W>();
    const T* qkv = args.qkv.as<T>();
    const W *q_weight = args.q_weight.as<W>(), *k_weight = args.k_weight.as<W>();
    const W eps = W(args.eps);
    const int64_t grain = kGrain / std::max<int64_t>(layout.qk_columns(), 1) + 1;
    parallel_for(args.qkv.shape[0], grain, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        T* to = qk + row * layout.qk_columns();
        const T* from = qkv + row * layout.qkv_columns();
        W* out = rstd + row * heads;
        // Two loops, since g++ does not vectorize the row's sums in a loop that it has to split at h = H.
        for (int64_t h = 0; h < layout.H; ++h)
          out[h] = rmsnorm_row<T>(to + h * D, from + h * D, q_weight, D, eps);
        for (int64_t h = layout.H; h < heads; ++h)
          out[h] = rmsnorm_row<T>(to + h * D, from + h * D, k_weight, D, eps);
      }
    });
  });
}

template <> void qk_norm_backward_on<Device::cpu>(Context&, const QkNormBackward& args, Tensor partial) {
  with_float_type(args.qkv.dtype, [&]<class T>() {
    using W = Wide<T>;
    const HeadLayout layout = args.layout;
    const int64_t D = layout.D, heads = layout.H + layout.K;
    T* dqkv = args.dqkv.as<T>();
    const T* qkv = args.qkv.as<T>();
    const W* rstd = args.rstd.as<W>();
    const W *q_weight = args.q_weight.as<W>(), *k_weight = args.k_weight.as<W>();
    sum_rows<W>(partial, args.qkv.shape[0], [=](int64_t begin, int64_t end, W* sums) {
      for (int64_t row = begin; row < end; ++row) {
        T* d = dqkv + row * layout.qkv_columns();
        const T* x = qkv + row * layout.qkv_columns();
        const W* of_row = rstd + row * heads;
        for (int64_t h = 0; h < layout.H; ++h)
          rmsnorm_row_backward<T>(d + h * D, sums, d + h * D, x + h * D, q_weight, of_row[h], D);
        for (int64_t h = layout.H; h < heads; ++h)
          rmsnorm_row_backward<T>(d + h * D, sums + D, d + h * D, x + h * D, k_weight, of_row[h], D);
      }
    });
    add_partial_sums<W>(args.dq_weight, partial, 0);
    add_partial_sums<W>(args.dk_weight, partial, D);
  });
}

}  // namespace keen::ops
