#include "train/fork.h"

#include <numeric>

#include "core/console.h"
#include "train/forward_model.h"

namespace keen {

namespace {

// The parent and the fork read the same windows with the same arithmetic.
double batch_loss(ForwardModel& model, const SequentialWindows& windows, int64_t batch) {
  const int64_t count = std::min(batch, windows.count());
  double sum = 0;
  model.visit_losses(windows, count, [&](int64_t, std::span<const double> losses) {
    sum = std::accumulate(losses.begin(), losses.end(), sum);
  });
  return sum / static_cast<double>(count * windows.context());
}

void check_same_order(const RunConfig& config, const RunConfig& parent, const TrainState& state,
                      const std::string& fingerprint) {
  if (config.model.context != parent.model.context)
    fail(Exit::usage,
         "init.step: keep needs the parent's model.context ({}), not {}; or use \"step\": \"reset\"",
         parent.model.context, config.model.context);
  if (config.batch.sequences != parent.batch.sequences)
    fail(Exit::usage,
         "init.step: keep needs the parent's batch.sequences ({}), not {}; or use \"step\": \"reset\"",
         parent.batch.sequences, config.batch.sequences);
  if (config.seed != parent.seed)
    fail(Exit::usage, "init.step: keep needs the parent's seed ({}), not {}; or use \"step\": \"reset\"",
         parent.seed, config.seed);
  if (state.data_fingerprint != fingerprint)
    fail(Exit::data,
         "data.train: init.step: keep goes on in the parent's data (fingerprint {}), but {} has {}; or use "
         "\"step\": "
         "\"reset\"",
         state.data_fingerprint, config.data.train, fingerprint);
}

}  // namespace

ForkReport fork_run(Trainer& trainer, const RunConfig& config, const std::string& path, const Dataset& train,
                    const Dataset* validation, const Warn& warn) {
  ForkReport report;
  report.parent = resolve_checkpoint(path, warn);
  report.tensors = compare_tensors(report.parent, trainer.gpt.params);
  const RunConfig parent = load_run_config(report.parent.file("config.json"));
  const auto seed = static_cast<uint64_t>(config.seed);

  TrainState state =
      fork_checkpoint(report.parent, trainer.gpt.params, config.init.optimizer == KeepOrReset::keep);
  if (config.init.step == KeepOrReset::keep) {
    check_same_order(config, parent, state, train.fingerprint());
  } else {
    state.step = state.tokens = state.sequences = 0;
  }
  state.seed = seed;
  state.data_fingerprint = train.fingerprint();
  state.elapsed_s = 0;
  state.skipped_steps = state.failed_saves = 0;
  trainer.state = state;
  trainer.weights_changed();

  const SequentialWindows windows(validation != nullptr ? *validation : train, config.model.context);
  const auto loss_of = [&](const ModelConfig& model_config) {
    const Device device = trainer.device();
    ForwardModel model(model_config, device, trainer.gpt.dtype,
                       resolve_attention_path(config.attention_path, device), config.batch.micro_sequences,
                       config.model.context);
    model.load(report.parent, seed);
    return batch_loss(model, windows, config.batch.micro_sequences);
  };
  report.loss_before = loss_of(parent.model);
  report.loss_after = loss_of(config.model);
  return report;
}

std::string describe(const ForkReport& report) {
  Table table({"tensor", "shape", "", "starts as"});
  table.left_aligned(1);
  table.left_aligned(2);
  table.left_aligned(3);
  int64_t loaded = 0;
  for (const TensorFate& fate : report.tensors) {
    loaded += fate.kind == TensorFate::Kind::loaded ? 1 : 0;
    table.add({fate.name, to_string(fate.kind == TensorFate::Kind::dropped ? fate.stored : fate.shape),
               std::string(name_of(fate.kind)), fate.initial});
  }
  return fmt::format(
      "Fork of {} (step {}, {})\n{}{} of {} tensors loaded\nLoss on one same batch: {:.6f} before the swap, "
      "{:.6f} "
      "after\n",
      report.parent.directory.string(), report.parent.step, report.parent.hash, table.str(2), loaded,
      report.tensors.size(), report.loss_before, report.loss_after);
}

}  // namespace keen
