#include "core/buffer.h"

#include <sys/mman.h>

#include <utility>

#include "core/build.h"
#include "core/cuda.h"
#include "core/parallel.h"

namespace keen {

Buffer::Buffer(Device device, int64_t bytes, const char* purpose) : size_bytes_(bytes), device_(device) {
  if (bytes == 0) return;
  if (device == Device::cuda) {
    if constexpr (kCudaBuilt) {
      data_ = cuda::allocate(bytes, purpose);
      cuda::zero(data_, bytes);
      return;
    }
    fail(Exit::device, "device: this build of keen has no CUDA backend; set \"device\": \"cpu\"");
  }
  void* memory =
      mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    fail(Exit::device, "out of memory: {} needs {} bytes; use fewer batch.micro_sequences or a smaller model",
         purpose, bytes);
  data_ = static_cast<std::byte*>(memory);
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  constexpr int64_t kPage = 4096;
  parallel_for((bytes + kPage - 1) / kPage, 256, [this](int64_t begin, int64_t end) {
    for (int64_t page = begin; page < end; ++page) data_[page * kPage] = std::byte{0};
  });
}

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(device_, other.device_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if constexpr (kCudaBuilt)
    if (device_ == Device::cuda) cuda::release(data_);
  if (device_ == Device::cpu) munmap(data_, static_cast<size_t>(size_bytes_));
}

Tensor Arena::take(Shape shape, DType dtype) {
  Tensor x;
  x.dtype = dtype;
  x.device = device_;
  x.shape = shape;
  if (buffer_.data() != nullptr) x.data = buffer_.data() + top_;
  top_ += (x.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  peak_ = std::max(peak_, top_);
  check(buffer_.data() == nullptr || top_ <= buffer_.size(),
        "arena is full: the plan did not see this allocation");
  return x;
}

void Arena::allocate(const char* purpose) {
  buffer_ = Buffer(device_, peak_, purpose);
  top_ = peak_ = 0;
}

}  // namespace keen
