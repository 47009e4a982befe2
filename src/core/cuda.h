// What code without CUDA headers asks of the CUDA device. Defined only in builds with CUDA: callers stand
// behind `if constexpr (kCudaBuilt)`. Every failure raises Exit::device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace keen {

struct Context;
struct Tensor;
struct ConstTensor;

namespace cuda {

// 0 where there is no device or no driver. The first call starts the CUDA runtime, which takes a while: ask
// only when a device is wanted.
int device_count();

struct DeviceFacts {
  std::string name;
  int major, minor;  // compute capability
  int multiprocessors;
  int64_t memory_bytes, free_bytes;
  int64_t shared_bytes_per_block;  // that a kernel can ask for
  int64_t l2_bytes;
  std::string driver, runtime;  // versions, as 13.0
};
DeviceFacts device_facts();

// Device memory, aligned to 256 bytes or more, not yet zeroed. Where it does not fit, the message names
// `purpose`, the size and what is free.
std::byte* allocate(int64_t bytes, const char* purpose);
void zero(std::byte* memory, int64_t bytes);  // done on return
void release(std::byte* memory) noexcept;

// Host memory that the device reads and writes itself, so that copies run beside everything else.
std::byte* allocate_pinned(int64_t bytes, const char* purpose);
void release_pinned(std::byte* memory) noexcept;

// What keen::copy does where one side lies on the device.
void copy(Context& ctx, const Tensor& to, const ConstTensor& from);

// Waits until everything that was put into the context's stream is done; raises what went wrong in it.
void synchronize(Context& ctx);

}  // namespace cuda
}  // namespace keen
