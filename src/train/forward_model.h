// A model bound for forward passes alone: evaluation, the losses before and after a fork.
#pragma once

#include <functional>
#include <span>

#include "data/loader.h"
#include "model/gpt.h"
#include "train/checkpoint.h"

namespace keen {

// Runs `losses` on groups of B windows until the first `count` windows are through, and hands each window's
// losses, in order, to `visit`. `inputs` and `targets` (B T) are filled before each call; in a last, short
// group the missing windows repeat the last one, and are not visited. Stops early, returning false, once
// `stop` says so. Of `share.of` callers that share the groups out, one takes every share.of-th from
// share.part on.
struct Share {
  int64_t part = 0, of = 1;
};
bool visit_window_losses(const SequentialWindows& windows, int64_t count, Tensor inputs, Tensor targets,
                         const std::function<ConstTensor()>& losses,
                         const std::function<void(int64_t window, std::span<const double> losses)>& visit,
                         const std::function<bool()>& stop = {}, Share share = {});

// The same with the losses of a model under training or evaluation: `inputs`, `targets` and `acts` are those
// of passes of the shape `pass`, and are overwritten.
bool visit_model_losses(Context& ctx, const Gpt& gpt, const Pass& pass, GptActs& acts, Tensor inputs,
                        Tensor targets, const SequentialWindows& windows, int64_t count,
                        const std::function<void(int64_t window, std::span<const double> losses)>& visit,
                        const std::function<bool()>& stop = {}, Share share = {});

// How many windows `groups` groups of B are, at most all that there are; for any number of groups.
int64_t windows_of(const SequentialWindows& windows, int64_t groups, int64_t B);

class ForwardModel {
 public:
  // For passes of B sequences of T tokens, which may exceed the training context; parameters start at zero.
  // Raises Exit::usage when T exceeds the learned positions of the model.
  ForwardModel(const ModelConfig& config, Device device, DType dtype, ops::AttentionPath path, int64_t B,
               int64_t T);

  Gpt gpt;

  // Loads what the checkpoint has; what it has not (SSMax swapped in), and the scales that the config sets
  // anew (scales_set_anew), start as in a new run of this seed.
  LoadReport load(const Checkpoint& checkpoint, uint64_t seed);
  // Losses in nats of the first `count` windows, as visit_window_losses gives them.
  bool visit_losses(const SequentialWindows& windows, int64_t count,
                    const std::function<void(int64_t window, std::span<const double> losses)>& visit,
                    const std::function<bool()>& stop = {});

 private:
  Context ctx_;
  Gpt::Arenas arenas_;
  Pass pass_;
  GptActs acts_;
  Tensor inputs_, targets_;
};

}  // namespace keen
