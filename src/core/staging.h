// The way of large tensors between files or host code and a device, through bounded pieces of pinned memory.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "core/context.h"

namespace keen {

// Host memory from and to which copies run beside everything else: pinned where the context's device is CUDA,
// plain otherwise.
class StagingBuffer {
 public:
  StagingBuffer(Device device, int64_t bytes, const char* purpose);
  StagingBuffer(StagingBuffer&&) = delete;
  ~StagingBuffer();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_bytes_; }
  // A flat tensor over its first elements.
  Tensor as_tensor(int64_t count, DType dtype) const;

  // After copies from or to this memory were put into the context's stream: `wait` returns when they are
  // done, and at once when none were.
  void mark(Context& ctx);
  void wait();

 private:
  Device device_;
  std::byte* data_ = nullptr;
  int64_t size_bytes_;
  Buffer plain_;
  std::unique_ptr<LibraryState> event_;
  bool marked_ = false;
};

// The host's access to tensors of one device, for start, load and save. On the CPU pieces are the tensors
// themselves; on CUDA they go through two pinned buffers, so that the copy of one runs while the host works
// on the other. Creating one waits for everything that runs on the device.
class HostAccess {
 public:
  static constexpr int64_t kPieceBytes = int64_t{8} << 20;

  explicit HostAccess(Device device);

  // Calls fill(piece, first) for consecutive pieces, elements [first, first + piece.count()) of `to`: flat
  // tensors in host memory, to be overwritten. `to` has the values on return.
  void fill(Tensor to, const std::function<void(Tensor piece, int64_t first)>& fill);
  // Calls visit(piece, first) for consecutive pieces of `from`, valid during the call.
  void read(ConstTensor from, const std::function<void(ConstTensor piece, int64_t first)>& visit);

 private:
  Context ctx_;
  std::array<std::optional<StagingBuffer>, 2> buffers_;
};

}  // namespace keen
