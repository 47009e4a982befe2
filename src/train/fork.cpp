#include "train/fork.h"

#include <numeric>

#include "core/console.h"
#include "io/fault.h"
#include "train/forward_model.h"
#include "train/signals.h"

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

void check_same_order(const RunConfig& config, const RunConfig& parent, const std::string& parent_fingerprint,
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
  if (parent_fingerprint != fingerprint)
    fail(Exit::data,
         "data.train: init.step: keep goes on in the parent's data (fingerprint {}), but {} has {}; or use "
         "\"step\": "
         "\"reset\"",
         parent_fingerprint, config.data.train, fingerprint);
}

// Another attention leaves every matrix in its place. A matrix that has none, or that starts from random
// values, comes of a model that was built differently, which nobody should have to find in a long table.
void warn_of_matrices(const LoadReport& tensors, const Warn& warn) {
  const auto name_those = [&](TensorFate::Kind kind, std::string_view what) {
    std::vector<std::string> names;
    for (const TensorFate& fate : tensors)
      if (fate.kind == kind && std::max(fate.shape.rank, fate.stored.rank) > 1) names.push_back(fate.name);
    if (!names.empty()) warn(fmt::format("{}: {}", what, fmt::join(names, ", ")));
  };
  name_those(TensorFate::Kind::dropped,
             "the model has no place for these matrices of the parent, which are left out");
  name_those(TensorFate::Kind::fresh, "the parent lacks these matrices, which start from random values");
}

}  // namespace

ForkPlan plan_fork(const Params& params, const RunConfig& config, const std::string& path,
                   const Dataset& train, const Warn& warn) {
  ForkPlan plan;
  plan.parent = resolve_checkpoint(path, warn);
  plan.tensors = compare_tensors(plan.parent, params, scales_set_anew(plan.parent, config.model));
  check_match(plan.tensors, Match::by_name, plan.parent);
  warn_of_matrices(plan.tensors, warn);
  if (config.init.step == KeepOrReset::keep)
    check_same_order(config, checkpoint_config(plan.parent), plan.parent.data_fingerprint,
                     train.fingerprint());
  return plan;
}

ForkReport fork_run(Trainer& trainer, const RunConfig& config, const std::string& path, const Dataset& train,
                    const Dataset* validation, const Warn& warn) {
  ForkReport report{plan_fork(trainer.gpt.params, config, path, train, warn)};
  const RunConfig parent = checkpoint_config(report.parent);
  const auto seed = static_cast<uint64_t>(config.seed);

  TrainState state =
      fork_checkpoint(report.parent, trainer.gpt.params, config.init.optimizer == KeepOrReset::keep,
                      scales_set_anew(report.parent, config.model));
  if (config.init.step == KeepOrReset::reset) state.step = state.tokens = state.sequences = 0;
  state.seed = seed;
  state.data_fingerprint = train.fingerprint();
  state.elapsed_s = 0;
  state.skipped_steps = state.failed_saves = 0;
  trainer.state = state;
  trainer.weights_changed();

  const SequentialWindows windows(validation != nullptr ? *validation : train, config.model.context);
  const auto loss_of = [&](const ModelConfig& model_config) {
    const Device device = trainer.device();
    ForwardModel model(
        model_config, device, trainer.gpt.dtype,
        resolve_attention_path(config.attention_path, device, trainer.gpt.dtype, model_config.head_width()),
        config.batch.micro_sequences, config.model.context);
    model.load(report.parent, seed);
    return batch_loss(model, windows, config.batch.micro_sequences);
  };
  // Each takes about as long as a micro-batch, which is how often training asks too.
  const auto stop_where_asked = [] {
    if (const int signal = stop_signal(); signal != 0)
      fail(Exit::stopped,
           "stopped by signal {} while the fork was prepared; nothing is written yet, and the same command "
           "begins again",
           signal);
  };
  fault::moment("fork");
  stop_where_asked();
  report.loss_before = loss_of(parent.model);
  stop_where_asked();
  report.loss_after = loss_of(config.model);
  return report;
}

std::string describe(const ForkPlan& plan) {
  Table table({"tensor", "shape", "", "starts as"});
  table.left_aligned(1);
  table.left_aligned(2);
  table.left_aligned(3);
  int64_t loaded = 0;
  for (const TensorFate& fate : plan.tensors) {
    loaded += fate.kind == TensorFate::Kind::loaded ? 1 : 0;
    table.add({fate.name, to_string(fate.kind == TensorFate::Kind::dropped ? fate.stored : fate.shape),
               std::string(name_of(fate.kind)), fate.initial});
  }
  return fmt::format("Fork of {} (step {}, {})\n{}{} of {} tensors loaded\n", plan.parent.directory.string(),
                     plan.parent.step, plan.parent.hash, table.str(2), loaded, plan.tensors.size());
}

std::string describe(const ForkReport& report) {
  return describe(static_cast<const ForkPlan&>(report)) +
         fmt::format("Loss on one same batch: {:.6f} before the swap, {:.6f} after\n", report.loss_before,
                     report.loss_after);
}

}  // namespace keen
