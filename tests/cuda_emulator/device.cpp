#include "device.h"

#include <cstdio>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

using namespace cuda_emulator;

namespace cuda_emulator {

Device& device() {
  static Device the_device;
  return the_device;
}

bool environment_is(const char* name, const char* value) {
  const char* is = std::getenv(name);
  return is != nullptr && std::strcmp(is, value) == 0;
}

cudaError_t error(cudaError_t status) {
  if (status != cudaSuccess) device().last = status;
  return status;
}

cudaError_t failed_launch(const std::string& message) {
  device().message = message;
  std::fprintf(stderr, "CUDA emulator: %s\n", message.c_str());
  device().sticky = cudaErrorLaunchFailure;
  return error(cudaErrorLaunchFailure);
}

const std::pair<const std::byte* const, Allocation>* allocation_of(const void* address) {
  const auto& memory = device().memory;
  auto it = memory.upper_bound(static_cast<const std::byte*>(address));
  if (it == memory.begin()) return nullptr;
  --it;
  return static_cast<const std::byte*>(address) < it->first + it->second.bytes ? &*it : nullptr;
}

bool lies_in(const void* address, size_t bytes, bool on_device) {
  const auto* allocation = allocation_of(address);
  if (allocation == nullptr || allocation->second.pinned) return !on_device;
  const auto* end = static_cast<const std::byte*>(address) + bytes;
  return on_device && end <= allocation->first + allocation->second.bytes;
}

void poison(const std::byte* memory, size_t bytes, bool closed) {
#ifdef __SANITIZE_ADDRESS__
  if (closed)
    __asan_poison_memory_region(memory, bytes);
  else
    __asan_unpoison_memory_region(memory, bytes);
#else
  (void)memory, (void)bytes, (void)closed;
#endif
}

}  // namespace cuda_emulator

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidMemcpyDirection:
      return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "an unknown error";
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidMemcpyDirection:
      return "memory does not lie where the direction of the copy says";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorLaunchFailure:
      return device().message.c_str();
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
  }
  return "unknown";
}

cudaError_t cudaGetLastError() {
  const Lock lock(device().mutex);
  return std::exchange(device().last, device().sticky);
}
cudaError_t cudaPeekAtLastError() {
  const Lock lock(device().mutex);
  return device().last;
}

cudaError_t cudaGetDeviceCount(int* count) {
  const bool hidden = environment_is("CUDA_VISIBLE_DEVICES", "");
  *count = hidden ? 0 : 1;
  return hidden ? error(cudaErrorNoDevice) : cudaSuccess;
}
cudaError_t cudaSetDevice(int index) { return index == 0 ? cudaSuccess : error(cudaErrorInvalidValue); }
cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  std::snprintf(p->name, sizeof p->name, "CUDA emulator");
  size_t free_bytes = 0;
  cudaMemGetInfo(&free_bytes, &p->totalGlobalMem);
  p->sharedMemPerBlock = kSharedBytes;
  p->sharedMemPerBlockOptin = kSharedBytesOptIn;
  p->sharedMemPerMultiprocessor = kSharedBytesOptIn + 1024;
  p->major = 9;
  p->multiProcessorCount = kMultiprocessors;
  p->l2CacheSize = 1 << 20;
  p->maxThreadsPerBlock = 1024;
  p->warpSize = kWarp;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = kSharedBytes;
      break;
    case cudaDevAttrWarpSize:
      *value = kWarp;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 1 << 20;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = kSharedBytesOptIn + 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kSharedBytesOptIn;
      break;
    default:
      return error(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

// Forgets what went wrong. Unlike CUDA's it keeps memory and streams, which tests still own.
cudaError_t cudaDeviceReset() {
  const Lock lock(device().mutex);
  for (CUstream_st* stream : device().streams) drain(*stream);
  device().sticky = device().last = cudaSuccess;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Lock lock(device().mutex);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > kSharedBytesOptIn) return error(cudaErrorInvalidValue);
  device().shared_bytes_of_kernel[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}
