// LayerNorm (Ba, Kiros and Hinton, "Layer Normalization", 2016).
#pragma once

#include "core/context.h"

namespace keen::ops {

struct LayerNorm {
  Tensor y;           // (N, C)  overwritten with (x - mean) * rstd * w + bias; may alias x
  Tensor mean, rstd;  // (N)     wide; overwritten; rstd = 1 / sqrt(var + eps), var over C without Bessel's correction
  ConstTensor x;      // (N, C)
  ConstTensor w;      // (C)     wide
  ConstTensor bias;   // (C)     wide; optional
  double eps;
};
void layernorm(Context& ctx, const LayerNorm& args);

struct LayerNormBackward {
  Tensor dx;         // (N, C)  overwritten; may alias dy
  Tensor dw;         // (C)     wide; added to
  Tensor dbias;      // (C)     wide; added to; optional
  ConstTensor dy;    // (N, C)
  ConstTensor x;     // (N, C)
  ConstTensor w;     // (C)
  ConstTensor mean;  // (N)
  ConstTensor rstd;  // (N)
};
void layernorm_backward(Context& ctx, const LayerNormBackward& args);

}  // namespace keen::ops
