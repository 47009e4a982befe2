// The rate at which this machine multiplies matrices: the 100 % of MFU (model FLOPs utilization).
#pragma once

#include "core/device.h"
#include "core/dtype.h"

namespace keen {

// FLOP/s of the GEMM library on operands of `dtype`, best of several products within about 0.08 s: of 1024 x
// 1024 x 1024 on the CPU, of square matrices large enough to take a millisecond on CUDA. A float64 run is
// measured against float32, since its products are plain loops.
double measure_gemm_flops_per_s(Device device, DType dtype);

}  // namespace keen
