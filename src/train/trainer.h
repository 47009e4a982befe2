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
  std::string first_bad{};  // first parameter whose gradient is not finite; empty when only the loss is not
};

// What memory goes where, in bytes; one line each in the start-up table.
struct MemoryUse {
  std::string category;
  int64_t bytes;
};

class Trainer {
 public:
  // Plans and, unless `plan_only`, allocates everything that steps and validation will need; nothing is
  // allocated after that. Parameters start from the seed.
  Trainer(const RunConfig& config, const Dataset& train, const Dataset* validation, Communicator& comm,
          bool plan_only = false);

  // One update: forward and backward over the micro-batches of the global batch that `state` stands before,
  // clipping by the global norm, AdamW.
  StepResult step();

  // Mean loss (nats a token) over evaluate.batches groups of micro_sequences windows from the start of the
  // validation data, fewer where it is short. Only with validation data; nothing when a signal came.
  std::optional<double> validate();
  bool has_validation() const { return validation_.has_value(); }

  // Everything beside the parameters that a checkpoint holds; `step` advances it.
  TrainState state;
  Gpt gpt;

  // To be called after the masters changed from outside (load, fork).
  void weights_changed() { gpt.params.round_values(ctx_); }
  std::vector<MemoryUse> memory() const;
  int64_t tokens_per_step() const { return config_.batch.sequences * gpt.config.context; }
  Device device() const { return ctx_.device; }
  ops::AttentionPath attention_path() const { return pass_.path; }

 private:
  void bind();
  void plan_step();
  void read_batch(int64_t first_sequence, int32_t* inputs, int32_t* targets) const;
  void micro_step(const std::function<void(int64_t)>& bucket_done);
  void measure_gradients();
  void update_weights(double lr);
  void read_result(StepResult& result);
  Tensor bucket_gradients(int64_t bucket) const;

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
  Tensor grad_square_sums_;              // (number of parameters)  float64
  Tensor loss_;                          // (1)  float64; mean over the global batch
  Tensor clip_;                          // (2)  float64; global norm, and the factor that clips
  std::optional<StagingBuffer> result_;  // where the host reads loss and norm on CUDA
  std::vector<ops::Segment> segments_;   // one a parameter, in the order of gpt.params
};

}  // namespace keen
