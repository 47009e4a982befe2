// Elementary functions of kernels that are otherwise bound by memory: the hardware's approximations.
#pragma once

#include "core/ptx.cuh"

namespace keen::ops {

// Relative error below 1e-5 for results above 1e-38, 0 below that; NaN stays NaN.
__device__ __forceinline__ float exp_approx(float x) { return ptx::exp2_approx(x * 1.44269504f); }

// a / b within 2 units in the last place; 0 where b exceeds 2^126.
__device__ __forceinline__ float divide_approx(float a, float b) { return __fdividef(a, b); }

__device__ __forceinline__ float sigmoid_approx(float x) {
  return divide_approx(1.0f, 1.0f + exp_approx(-x));
}

}  // namespace keen::ops
