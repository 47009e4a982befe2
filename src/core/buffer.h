// Buffer: the owner of one block of memory on a device. Arena: hands out pieces of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/tensor.h"

namespace keen {

// One zeroed allocation, aligned to 4096 bytes (256 on CUDA). On the CPU the pages are touched first by the
// threads of parallel_for, and transparent huge pages are asked for. Raises Exit::device when memory runs
// out, naming `purpose` and the size.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device device, int64_t bytes, const char* purpose);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_bytes_ = 0;
  Device device_ = Device::cpu;
};

// A stack of tensors. Without memory behind it an arena only measures: the planning pass takes the same
// tensors in the same order, and `peak` is then the exact size to allocate. With memory it refuses to grow.
class Arena {
 public:
  static constexpr int64_t kAlignment = 256;

  explicit Arena(Device device) : device_(device) {}

  Tensor take(Shape shape, DType dtype);
  // The marks of a stack: everything taken after `mark` is given back by `release`.
  int64_t mark() const { return top_; }
  void release(int64_t mark) { top_ = mark; }
  int64_t peak() const { return peak_; }
  // What is allocated, or, before that, what would have to be.
  int64_t size() const { return buffer_.data() != nullptr ? buffer_.size() : peak_; }

  // Allocates what was measured, and starts anew at the bottom.
  void allocate(const char* purpose);
  std::byte* data() const { return buffer_.data(); }

 private:
  Device device_;
  Buffer buffer_;
  int64_t top_ = 0, peak_ = 0;
};

}  // namespace keen
