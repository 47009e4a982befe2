// A warp or a block takes a row: ops/norm.cuh.
#include "ops/layernorm.h"
#include "ops/norm.cuh"

namespace keen::ops {

template <> void layernorm_on<Device::cuda>(Context& ctx, const LayerNorm& args) {
  cuda::with_device_float_type(args.x.dtype, [&]<class T>() {
    norm_forward<true, T>(ctx, {.y = args.y.as<T>(),
                                .sum = args.sum ? args.sum.as<T>() : nullptr,
                                .mean = args.mean.as<float>(),
                                .rstd = args.rstd.as<float>(),
                                .x = args.x.as<T>(),
                                .branch = args.branch ? args.branch.as<T>() : nullptr,
                                .w = args.w.as<float>(),
                                .bias = args.bias ? args.bias.as<float>() : nullptr,
                                .N = args.x.shape[0],
                                .C = args.x.shape[1],
                                .eps = static_cast<float>(args.eps)});
  });
}

template <>
void layernorm_backward_on<Device::cuda>(Context& ctx, const LayerNormBackward& args, Tensor partial) {
  cuda::with_device_float_type(args.x.dtype, [&]<class T>() {
    const NormBackward<T> kernel_args{.dx = args.dx.as<T>(),
                                      .partial = partial.as<float>(),
                                      .dy = args.dy.as<T>(),
                                      .x = args.x.as<T>(),
                                      .dresidual = args.dresidual ? args.dresidual.as<T>() : nullptr,
                                      .w = args.w.as<float>(),
                                      .mean = args.mean.as<float>(),
                                      .rstd = args.rstd.as<float>(),
                                      .chunks = RowChunks(args.x.shape[0], Device::cuda),
                                      .C = args.x.shape[1]};
    if (args.dbias)
      norm_backward<true, true, T>(ctx, kernel_args);
    else
      norm_backward<true, false, T>(ctx, kernel_args);
  });
  add_partial_sums(ctx, args.dw, partial, 0);
  if (args.dbias) add_partial_sums(ctx, args.dbias, partial, args.x.shape[1]);
}

}  // namespace keen::ops
