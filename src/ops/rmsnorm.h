// RMSNorm (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019).
#pragma once

#include "core/context.h"

namespace keen::ops {

// y = x * rstd * w with rstd = 1 / sqrt(mean(x^2) + eps) per row, statistics in the wide type.
// x, y (N, C); rstd (N) wide; w (C) wide. Overwrites y and rstd; y may alias x.
void rmsnorm(Context& ctx, Tensor y, Tensor rstd, ConstTensor x, ConstTensor w, double eps);

struct RmsNormBackward {
  Tensor dx;       // (N, C)  overwritten; may alias dy
  Tensor dw;       // (C)     wide; added to
  ConstTensor dy;  // (N, C)
  ConstTensor x;   // (N, C)
  ConstTensor w;   // (C)
  ConstTensor rstd;  // (N)
};
void rmsnorm_backward(Context& ctx, const RmsNormBackward& args);

}  // namespace keen::ops
