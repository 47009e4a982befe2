// The token ids of training, on their way from the loader to the device.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "core/staging.h"

namespace keen {

// Batches of `rows` inputs and targets. On CUDA the host fills one of two pinned buffers while the device
// still works on the batch before, and nobody waits but for a buffer that is still being copied. On the CPU
// they are filled in place.
class TokenFeed {
 public:
  // Takes inputs and targets, (rows) int32 each, from the arena; call inside `bind` of plan_and_allocate.
  void bind(int64_t rows, Arena& activations);
  Tensor inputs() const { return inputs_; }
  Tensor targets() const { return targets_; }

  using Fill = std::function<void(int64_t first_sequence, int32_t* inputs, int32_t* targets)>;
  // The batch that begins with this sequence is in inputs() and targets() for everything that runs later in
  // the context's stream. `fill` is called unless `prepare` has seen to it.
  void next(Context& ctx, int64_t first_sequence, const Fill& fill);
  // Says which batch comes next: on CUDA it is read now, while the device works.
  void prepare(Context& ctx, int64_t first_sequence, const Fill& fill);

 private:
  Tensor inputs_, targets_;
  std::array<std::optional<StagingBuffer>, 2> buffers_;
  size_t turn_ = 0;        // the buffer that is filled next, or that holds the prepared batch
  int64_t prepared_ = -1;  // first sequence of the batch in that buffer
};

}  // namespace keen
