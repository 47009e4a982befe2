// Memory of the device, pinned memory of the host, and copies.
#include <cstring>

#include "device.h"

using namespace cuda_emulator;

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const Lock lock(device().mutex);
  const char* mib = std::getenv("KEEN_EMULATOR_MEMORY_MIB");
  *total_bytes = static_cast<size_t>(mib != nullptr ? std::atoll(mib) : 4096) << 20;
  *free_bytes = *total_bytes - std::min(*total_bytes, device().used_bytes);
  return cudaSuccess;
}

namespace {

// Fresh memory is NaN, as far as floats go.
void* new_memory(size_t bytes, bool pinned) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, std::max<size_t>(bytes, 1)) != 0) return nullptr;
  std::memset(memory, 0xff, bytes);
  device().memory[static_cast<std::byte*>(memory)] = {bytes, pinned};
  if (!pinned && device().open == 0) poison(static_cast<std::byte*>(memory), bytes, true);
  return memory;
}

cudaError_t delete_memory(void* memory, bool pinned) {
  if (memory == nullptr) return cudaSuccess;
  const auto it = device().memory.find(static_cast<std::byte*>(memory));
  if (it == device().memory.end() || it->second.pinned != pinned) return error(cudaErrorInvalidValue);
  for (CUstream_st* stream : device().streams) drain(*stream);  // as the driver waits
  poison(it->first, it->second.bytes, false);
  if (!pinned) device().used_bytes -= it->second.bytes;
  device().memory.erase(it);
  std::free(memory);
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  size_t free_bytes = 0, total_bytes = 0;
  cudaMemGetInfo(&free_bytes, &total_bytes);
  if (bytes > free_bytes) return error(cudaErrorMemoryAllocation);
  *memory = new_memory(bytes, false);
  if (*memory == nullptr) return error(cudaErrorMemoryAllocation);
  device().used_bytes += bytes;
  return error(device().sticky);
}

cudaError_t cudaFree(void* memory) {
  const Lock lock(device().mutex);
  return delete_memory(memory, false);
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  *memory = new_memory(bytes, true);
  return *memory != nullptr ? cudaSuccess : error(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(device().mutex);
  return delete_memory(memory, true);
}

namespace {

bool goes_as_said(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return true;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return lies_in(to, bytes, to_device) && lies_in(from, bytes, from_device);
}

bool is_pageable(const void* address) { return allocation_of(address) == nullptr; }

}  // namespace

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (bytes == 0) return cudaSuccess;
  if (!goes_as_said(to, from, bytes, kind)) return error(cudaErrorInvalidMemcpyDirection);
  const bool capturing = stream_or_null(stream).capture != nullptr;
  // What is pageable is staged at once: its memory may be used again on return.
  if (is_pageable(from)) {
    if (capturing) return error(cudaErrorStreamCaptureUnsupported);
    std::vector<std::byte> staged(bytes);
    std::memcpy(staged.data(), from, bytes);
    device().idle_waits += !stream_or_null(stream).work.empty();
    return put(stream, [to, staged = std::move(staged)] { std::memcpy(to, staged.data(), staged.size()); });
  }
  const cudaError_t status = put(stream, [=] { std::memmove(to, from, bytes); });
  if (!is_pageable(to)) return status;
  if (capturing) return error(cudaErrorStreamCaptureUnsupported);
  wait_for(stream_or_null(stream));
  return error(device().sticky);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  drain(device().null_stream);
  return status != cudaSuccess ? status : error(device().sticky);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  for (size_t row = 0; row < height; ++row) {
    const cudaError_t status =
        cudaMemcpyAsync(static_cast<std::byte*>(to) + row * to_pitch,
                        static_cast<const std::byte*>(from) + row * from_pitch, width, kind, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (bytes == 0) return cudaSuccess;
  if (allocation_of(memory) == nullptr) return error(cudaErrorInvalidValue);
  return put(stream, [=] { std::memset(memory, value, bytes); });
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  const cudaError_t status = cudaMemsetAsync(memory, value, bytes, nullptr);
  drain(device().null_stream);
  return status;
}
