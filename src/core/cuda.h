// What code without CUDA headers asks of the CUDA device. Defined only in builds with CUDA: callers stand
// behind `if constexpr (kCudaBuilt)`. Every failure raises Exit::device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace keen {

struct Context;
struct LibraryState;
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

// Copies at once: waits for everything that runs on the device, copies, and waits for that.
void copy_now(const Tensor& to, const ConstTensor& from);

// Waits until everything that was put into the context's stream is done; raises what went wrong in it.
void synchronize(Context& ctx);
// The same for every stream there is.
void wait_for_device();

// A place in a stream: `mark` puts it behind everything that is there, `wait` returns when that is done.
std::unique_ptr<LibraryState> make_event();
void mark(LibraryState& event, Context& ctx);
void wait(LibraryState& event);

// A CUDA graph of what `work` puts into the context's stream, none of which runs. It must not wait, allocate,
// or copy from or to memory of the host that is not pinned.
std::unique_ptr<LibraryState> record_graph(Context& ctx, const std::function<void()>& work);
void launch_graph(Context& ctx, LibraryState& graph);

}  // namespace cuda
}  // namespace keen
