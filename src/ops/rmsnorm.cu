// A warp or a block takes a row: ops/norm.cuh.
#include "ops/norm.cuh"
#include "ops/rmsnorm.h"

namespace keen::ops {

template <>
void rmsnorm_on<Device::cuda>(Context& ctx, Tensor y, Tensor rstd, ConstTensor x, ConstTensor w, double eps) {
  cuda::with_device_float_type(x.dtype, [&]<class T>() {
    norm_forward<false, T>(ctx, {.y = y.as<T>(),
                                 .mean = nullptr,
                                 .rstd = rstd.as<float>(),
                                 .x = x.as<T>(),
                                 .w = w.as<float>(),
                                 .bias = nullptr,
                                 .N = x.shape[0],
                                 .C = x.shape[1],
                                 .eps = static_cast<float>(eps)});
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
