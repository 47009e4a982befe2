// A warp or a block takes a row: ops/norm.cuh.
#include "ops/norm.cuh"
#include "ops/rmsnorm.h"

namespace keen::ops {

template <> void rmsnorm_on<Device::cuda>(Context& ctx, const RmsNorm& args) {
  cuda::with_device_float_type(args.x.dtype, [&]<class T>() {
    norm_forward<false, T>(ctx, {.y = args.y.as<T>(),
                                 .sum = args.sum ? args.sum.as<T>() : nullptr,
                                 .mean = nullptr,
                                 .rstd = args.rstd.as<float>(),
                                 .x = args.x.as<T>(),
                                 .branch = args.branch ? args.branch.as<T>() : nullptr,
                                 .w = args.w.as<float>(),
                                 .bias = nullptr,
                                 .N = args.x.shape[0],
                                 .C = args.x.shape[1],
                                 .eps = static_cast<float>(args.eps)});
  });
}

template <>
void rmsnorm_backward_on<Device::cuda>(Context& ctx, const RmsNormBackward& args, Tensor partial) {
  cuda::with_device_float_type(args.x.dtype, [&]<class T>() {
    norm_backward<false, false, T>(ctx, {.dx = args.dx.as<T>(),
                                         .partial = partial.as<float>(),
                                         .dy = args.dy.as<T>(),
                                         .x = args.x.as<T>(),
                                         .dresidual = args.dresidual ? args.dresidual.as<T>() : nullptr,
                                         .w = args.w.as<float>(),
                                         .mean = nullptr,
                                         .rstd = args.rstd.as<float>(),
                                         .chunks = RowChunks(args.x.shape[0], Device::cuda),
                                         .C = args.x.shape[1]});
    add_partial_sums(ctx, args.dw, partial, 0);
  });
}

}  // namespace keen::ops
