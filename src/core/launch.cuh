// How kernels are launched, and how errors of the CUDA runtime become ours.
#pragma once

#include <cuda_runtime.h>

#include <concepts>
#include <cstdint>
#include <utility>

#include "core/context.h"
#include "core/dynamic_shared.cuh"
#include "core/tensor.h"

namespace keen::cuda {

// The stream of a context, made at its first use. It does not wait for the legacy default stream.
cudaStream_t stream_of(Context& ctx);

// Raises Exit::device with what was being done and what CUDA says about it. Errors of kernels come up late,
// at a call that waits for them: CUDA_LAUNCH_BLOCKING=1 in the environment shows the right place.
void check_cuda(cudaError_t status, const char* what);

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The device's numbers that choose a launch, asked once per context.
struct DeviceLimits {
  int major, minor;  // compute capability
  int multiprocessors;
  int shared_bytes_per_block;  // that a kernel can ask for
  int shared_bytes_per_multiprocessor;
  int l2_bytes;
};
const DeviceLimits& limits_of(Context& ctx);

// A grid of blocks along x, y and z: check()s what cannot be a grid before CUDA calls it an invalid argument.
inline dim3 grid_of(int64_t x, int64_t y = 1, int64_t z = 1) {
  check(x >= 1 && x <= 2147483647 && y >= 1 && y <= 65535 && z >= 1 && z <= 65535,
        "launch: a grid of at most (2^31 - 1, 65535, 65535) blocks, and at least one");
  return {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)};
}

// kernel<<<grid, block, shared_bytes>>>(args...) in the context's stream; above 48 KiB of dynamic shared
// memory the kernel is told so first. Arguments convert to the kernel's parameters. Does not wait.
template <class... Params, class... Args>
void launch(Context& ctx, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            Args&&... args) {
  if (shared_bytes > size_t{48} << 10)
    check_cuda(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
        "asking for a kernel's shared memory");
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream_of(ctx);
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), "launching a kernel");
}

// with_float_type for the types that kernels exist for. The CPU has float64 for tests; on CUDA the run config
// refuses it long before this does.
template <class F> decltype(auto) with_device_float_type(DType type, F&& f) {
  if (type == DType::bf16) return f.template operator()<bf16>();
  if (type != DType::f32)
    fail(Exit::usage, "device: CUDA computes in fp32 and bf16, not in {}", name_of(type));
  return f.template operator()<float>();
}

}  // namespace keen::cuda
