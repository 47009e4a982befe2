#include "model/layers.h"

#include "ops/layernorm.h"
#include "ops/linear.h"
#include "ops/rmsnorm.h"

namespace keen {

Norm make_norm(Params& params, const ModelConfig& config, const std::string& name, int64_t bucket) {
  Norm norm{config.norm, config.norm_eps,
            &params.add(name + ".weight", {config.width}, constant(1), true, bucket)};
  if (config.norm == NormKind::layernorm && config.bias)
    norm.bias = &params.add(name + ".bias", {config.width}, constant(0), true, bucket);
  return norm;
}

NormStats take_norm_stats(const Norm& norm, int64_t N, DType dtype, Arena& arena) {
  NormStats stats;
  if (norm.kind == NormKind::layernorm) stats.mean = arena.take({N}, wide(dtype));
  stats.rstd = arena.take({N}, wide(dtype));
  return stats;
}

void norm_forward(Context& ctx, const Norm& norm, Tensor y, const NormStats& stats, const NormInput& input) {
  if (norm.kind == NormKind::rmsnorm)
    return ops::rmsnorm(ctx, {.y = y,
                              .rstd = stats.rstd,
                              .x = input.x,
                              .w = norm.weight->value,
                              .eps = norm.eps,
                              .branch = input.branch,
                              .sum = input.sum});
  ops::layernorm(ctx, {.y = y,
                       .mean = stats.mean,
                       .rstd = stats.rstd,
                       .x = input.x,
                       .w = norm.weight->value,
                       .bias = value_of(norm.bias),
                       .eps = norm.eps,
                       .branch = input.branch,
                       .sum = input.sum});
}

void norm_backward(Context& ctx, const Norm& norm, Tensor dx, const NormStats& stats, ConstTensor dy,
                   ConstTensor x, ConstTensor dresidual) {
  const Param& w = *norm.weight;
  if (norm.kind == NormKind::rmsnorm)
    return ops::rmsnorm_backward(
        ctx,
        {.dx = dx, .dw = w.grad, .dy = dy, .x = x, .w = w.value, .rstd = stats.rstd, .dresidual = dresidual});
  ops::layernorm_backward(ctx, {.dx = dx,
                                .dw = w.grad,
                                .dbias = grad_of(norm.bias),
                                .dy = dy,
                                .x = x,
                                .w = w.value,
                                .mean = stats.mean,
                                .rstd = stats.rstd,
                                .dresidual = dresidual});
}

Dense make_dense(Params& params, const ModelConfig& config, const std::string& name, int64_t O, int64_t I,
                 double stddev, int64_t bucket) {
  Dense dense{&params.add(name + ".weight", {O, I}, normal(stddev), true, bucket)};
  if (config.bias) dense.bias = &params.add(name + ".bias", {O}, constant(0), true, bucket);
  return dense;
}

void dense_forward(Context& ctx, const Dense& dense, Tensor y, ConstTensor x) {
  ops::linear(ctx, y, x, dense.weight->value, value_of(dense.bias));
}

void dense_gelu_forward(Context& ctx, const Dense& dense, Tensor y, Tensor z, ConstTensor x) {
  ops::linear_gelu(ctx, y, z, x, dense.weight->value, value_of(dense.bias));
}

void dense_backward(Context& ctx, const Dense& dense, Tensor dx, ConstTensor dy, ConstTensor x,
                    ConstTensor x_is_gelu_of) {
  ops::linear_backward(ctx, {.dx = dx,
                             .dw = dense.weight->grad,
                             .dbias = grad_of(dense.bias),
                             .dy = dy,
                             .x = x,
                             .w = dense.weight->value,
                             .x_is_gelu_of = x_is_gelu_of});
}

}  // namespace keen
