#include "core/staging.h"

#include <utility>

#include "core/copy.h"
#include "core/cuda.h"

namespace keen {

namespace {

template <class V> V flat_part(const V& x, int64_t first, int64_t count) {
  return x.reshape({x.count()}).rows(first, first + count);
}

}  // namespace

StagingBuffer::StagingBuffer(Device device, int64_t bytes, const char* purpose)
    : device_(device), size_bytes_(bytes) {
  if constexpr (kCudaBuilt) {
    if (device == Device::cuda) {
      event_ = cuda::make_event();
      data_ = cuda::allocate_pinned(bytes, purpose);
      return;
    }
  }
  plain_ = Buffer(Device::cpu, bytes, purpose);
  data_ = plain_.data();
}

// Whoever raises between a copy and its end must not take the memory from under it.
StagingBuffer::~StagingBuffer() {
  if constexpr (kCudaBuilt) {
    if (device_ != Device::cuda) return;
    try {
      wait();
    } catch (const Error&) {
      // The device failed, and copies nothing any more.
    }
    cuda::release_pinned(data_);
  }
}

Tensor StagingBuffer::as_tensor(int64_t count, DType dtype) const {
  Tensor x;
  x.data = data_;
  x.dtype = dtype;
  x.shape = {count};
  check(x.bytes() <= size_bytes_, "StagingBuffer: no more than it holds");
  return x;
}

void StagingBuffer::mark(Context& ctx) {
  if constexpr (kCudaBuilt) {
    if (device_ != Device::cuda) return;
    cuda::mark(*event_, ctx);
    marked_ = true;
  }
}

void StagingBuffer::wait() {
  if constexpr (kCudaBuilt)
    if (std::exchange(marked_, false)) cuda::wait(*event_);
}

HostAccess::HostAccess(Device device) : ctx_(device) {
  if (device == Device::cpu) return;
  for (auto& buffer : buffers_) buffer.emplace(device, kPieceBytes, "staging");
  if constexpr (kCudaBuilt) cuda::wait_for_device();
}

void HostAccess::fill(Tensor to, const std::function<void(Tensor piece, int64_t first)>& fill) {
  check(to.data != nullptr && to.device == ctx_.device, "HostAccess: a tensor of its device, with memory");
  if (to.device == Device::cpu) return fill(to.reshape({to.count()}), 0);
  const int64_t most = kPieceBytes / size_of(to.dtype);
  for (int64_t first = 0, turn = 0; first < to.count(); first += most, turn ^= 1) {
    StagingBuffer& buffer = *buffers_[static_cast<size_t>(turn)];
    buffer.wait();
    const Tensor piece = buffer.as_tensor(std::min(most, to.count() - first), to.dtype);
    fill(piece, first);
    copy(ctx_, flat_part(to, first, piece.count()), piece);
    buffer.mark(ctx_);
  }
  for (auto& buffer : buffers_) buffer->wait();
}

void HostAccess::read(ConstTensor from, const std::function<void(ConstTensor piece, int64_t first)>& visit) {
  check(from.data != nullptr && from.device == ctx_.device,
        "HostAccess: a tensor of its device, with memory");
  if (from.device == Device::cpu) return visit(from.reshape({from.count()}), 0);
  const int64_t most = kPieceBytes / size_of(from.dtype), count = from.count();
  const auto piece_at = [&](int64_t first) {
    return buffers_[static_cast<size_t>(first / most % 2)]->as_tensor(std::min(most, count - first),
                                                                      from.dtype);
  };
  const auto start = [&](int64_t first) {
    if (first >= count) return;
    const Tensor piece = piece_at(first);
    copy(ctx_, piece, flat_part(from, first, piece.count()));
    buffers_[static_cast<size_t>(first / most % 2)]->mark(ctx_);
  };
  start(0);
  for (int64_t first = 0; first < count; first += most) {
    start(first + most);  // into the other buffer, while this piece is visited
    buffers_[static_cast<size_t>(first / most % 2)]->wait();
    visit(piece_at(first), first);
  }
}

}  // namespace keen
