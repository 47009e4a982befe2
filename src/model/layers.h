// The two layers that blocks and the head are built of: a normalization of either kind, and a dense layer.
#pragma once

#include "model/config.h"
#include "model/params.h"

namespace keen {

struct Norm {
  NormKind kind = NormKind::rmsnorm;
  double eps = 0;
  Param* weight = nullptr;  // (C)
  Param* bias = nullptr;    // (C)  layernorm with biases only
};

struct NormStats {
  Tensor mean;  // (N)  layernorm only
  Tensor rstd;  // (N)
};

Norm make_norm(Params& params, const ModelConfig& config, const std::string& name, int64_t bucket);
NormStats take_norm_stats(const Norm& norm, int64_t N, DType dtype, Arena& arena);
// What a norm reads: x (N, C), or, with a branch (N, C), sum = x + branch, which it overwrites first.
struct NormInput {
  ConstTensor x;
  ConstTensor branch{};
  Tensor sum{};
};
// y = norm(input), (N, C); overwrites y and the statistics.
void norm_forward(Context& ctx, const Norm& norm, Tensor y, const NormStats& stats, const NormInput& input);
// dx = gradient of x, overwritten: what comes through the norm, and dresidual (N, C), what reaches x past it.
// May alias dy or dresidual. Adds to the gradients of weight and bias.
void norm_backward(Context& ctx, const Norm& norm, Tensor dx, const NormStats& stats, ConstTensor dy,
                   ConstTensor x, ConstTensor dresidual = {});

struct Dense {
  Param* weight = nullptr;  // (O, I)
  Param* bias = nullptr;    // (O)
};

// Weights start normal with this standard deviation, biases at zero.
Dense make_dense(Params& params, const ModelConfig& config, const std::string& name, int64_t O, int64_t I,
                 double stddev, int64_t bucket);
// y (N, O) = x (N, I) weight^T + bias.
void dense_forward(Context& ctx, const Dense& dense, Tensor y, ConstTensor x);
// z (N, O) = x weight^T + bias, y = GELU(z).
void dense_gelu_forward(Context& ctx, const Dense& dense, Tensor y, Tensor z, ConstTensor x);
// dx (N, I) is overwritten and may not alias dy; adds to the gradients of weight and bias. With
// `x_is_gelu_of` dx is the gradient of that.
void dense_backward(Context& ctx, const Dense& dense, Tensor dx, ConstTensor dy, ConstTensor x,
                    ConstTensor x_is_gelu_of = {});

}  // namespace keen
