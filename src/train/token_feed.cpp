#include "train/token_feed.h"

#include "core/copy.h"

namespace keen {

void TokenFeed::bind(int64_t rows, Arena& activations) {
  inputs_ = activations.take({rows}, DType::i32);
  targets_ = activations.take({rows}, DType::i32);
}

void TokenFeed::prepare(Context& ctx, int64_t first_sequence, const Fill& fill) {
  if (ctx.device == Device::cpu || prepared_ == first_sequence) return;
  std::optional<StagingBuffer>& buffer = buffers_[turn_];
  if (!buffer) buffer.emplace(ctx.device, inputs_.bytes() + targets_.bytes(), "token ids");
  buffer->wait();
  auto* ids = reinterpret_cast<int32_t*>(buffer->data());
  fill(first_sequence, ids, ids + inputs_.count());
  prepared_ = first_sequence;
}

void TokenFeed::next(Context& ctx, int64_t first_sequence, const Fill& fill) {
  if (ctx.device == Device::cpu) return fill(first_sequence, inputs_.as<int32_t>(), targets_.as<int32_t>());
  prepare(ctx, first_sequence, fill);
  StagingBuffer& buffer = *buffers_[turn_];
  const int64_t rows = inputs_.count();
  const Tensor from = buffer.as_tensor(2 * rows, DType::i32);
  copy(ctx, inputs_, from.rows(0, rows));
  copy(ctx, targets_, from.rows(rows, 2 * rows));
  buffer.mark(ctx);
  prepared_ = -1;
  turn_ ^= 1;
}

}  // namespace keen
