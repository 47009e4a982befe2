// The training step: one model, its memory, and what an update does to them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/recording.h"
#include "core/staging.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "model/gpt.h"
#include "train/checkpoint.h"
#include "train/run_config.h"
#include "train/token_feed.h"

namespace keen {

// Device and element type that a config's "auto" stands for on this machine: CUDA where this build has it and
// there is a device (an emulated one does not count).
Device resolve_device(DeviceChoice choice);
DType resolve_precision(Precision precision, Device device);
// The attention kernels that a config's attention_path stands for: "auto" is cuDNN's on CUDA where they can
// be had (for shapes that cuDNN then refuses, the flash kernels), and "cudnn" raises where they can not. On
// the CPU every path but "reference" is the fused one.
ops::AttentionPath resolve_attention_path(AttentionPath path, Device device, DType dtype, int64_t head_width);

struct StepResult {
  enum class Outcome : uint8_t {
    updated,
    non_finite,   // loss or gradients are not finite; the batch is consumed, and nothing else has changed
    interrupted,  // a signal came; nothing has changed
  } outcome = Outcome::updated;
  double loss = 0;       // mean over the tokens of the global batch, nats
  double grad_norm = 0;  // global, before clipping
  double lr = 0;
  double data_s = 0;        // that the step waited for its token ids
  std::string first_bad{};  // first parameter whose gradient is not finite; empty when only the loss is not
};

// What memory goes where, in bytes; one line each in the start-up table.
struct MemoryUse {
  std::string category;
  int64_t bytes;
  bool beside_device = false;  // of the host, while everything else lies on a GPU
};

class Trainer {
 public:
  // Plans and, unless `plan_only`, allocates everything that steps and validation will need; nothing is
  // allocated after that. Parameters start from the seed.
  Trainer(const RunConfig& config, const Dataset& train, const Dataset* validation, Communicator& comm,
          bool plan_only = false);

  // One update: forward and backward over the micro-batches of the global batch that `state` stands before,
  // clipping by the global norm, AdamW. Of several ranks each takes every ranks-th micro-batch; they add
  // gradients bucket by bucket while backward goes on, and with parallel.zero 1 each updates its slices.
  StepResult step();

  // Mean loss (nats a token) over evaluate.batches groups of micro_sequences windows from the start of the
  // validation data, fewer where it is short. Only with validation data; nothing when a signal came. Ranks
  // share the groups out.
  std::optional<double> validate();
  bool has_validation() const { return validation_.has_value(); }
  // Whether a signal asks for an end: of several ranks, whether one came to any of them before the last step
  // or validation, so that all of them say the same.
  bool stop_asked() const;

  // Everything beside the parameters that a checkpoint holds; `step` advances it.
  TrainState state;
  Gpt gpt;
  // Of rank 0, where checkpoint.background asks for it and training saves on its way.
  std::optional<Snapshot> snapshot;

  // To be called after the masters changed from outside (load, fork), on all ranks.
  void weights_changed();
  std::vector<MemoryUse> memory() const;
  int64_t tokens_per_step() const { return config_.batch.sequences * gpt.config.context; }
  Device device() const { return ctx_.device; }
  ops::AttentionPath attention_path() const { return pass_.path; }

 private:
  void bind();
  void plan_step();
  void read_batch(int64_t first_sequence, int32_t* inputs, int32_t* targets) const;
  void phase(const char* name) const;
  void micro_step(const std::function<void(int64_t)>& bucket_done);
  void start_sum_of_gradients(int64_t part);
  void measure_gradients();
  void update_weights(double lr);
  void gather_values();
  Tensor result_numbers();
  void tell_stop();
  void read_result(StepResult& result);
  bool takes_snapshot() const;
  bool shares_out() const { return gpt.params.sharing().share_out; }

  RunConfig config_;
  Communicator& comm_;
  Context ctx_;
  Gpt::Arenas arenas_;
  Loader loader_;
  std::optional<SequentialWindows> validation_;
  int64_t accumulation_;
  Pass pass_;
  GptActs acts_;
  TokenFeed tokens_;
  Recording micro_step_;
  // What ranks add before an update, (number of parameters + 2) float64, and its parts.
  Tensor summed_;
  Tensor grad_square_sums_;              // (number of parameters)
  Tensor loss_;                          // (1)  mean over the global batch
  Tensor stops_;                         // (1)  ranks that a signal came to
  Tensor clip_;                          // (2)  float64; global norm, and the factor that clips
  std::optional<StagingBuffer> result_;  // where the host reads loss and norm on CUDA
  std::vector<ops::Segment> segments_;  // what this rank updates, one a parameter, in the order of gpt.params
  std::vector<ops::Segment> measured_;  // what this rank adds to the global norm, likewise
  bool stop_agreed_ = false;
};

}  // namespace keen
