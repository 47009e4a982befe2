#include "train/run_loop.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/console.h"
#include "io/fault.h"
#include "io/fields.h"
#include "train/disk.h"
#include "train/fork.h"
#include "train/pieces.h"
#include "train/signals.h"

namespace keen {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What was asked for; a config that names no parent continues a fork as the fork that it is, so that the
// directory never forgets its parent, even when the fork was killed before its first checkpoint.
RunConfig with_parent_of(RunConfig config, const RunDirectory& directory) {
  if (!directory.is_new() && !config.init.from) config.init = directory.read_config().init;
  return config;
}

}  // namespace

Run::Run(const RunConfig& config, const fs::path& path, RunDirectory* directory, Communicator& comm,
         Trainer& trainer, const Dataset& train, const Dataset* validation, double gemm_flops_per_s)
    : config_(directory == nullptr ? config : with_parent_of(config, *directory)),
      path_(path),
      directory_(directory),
      comm_(comm),
      trainer_(trainer),
      train_(train),
      validation_(validation),
      config_text_(effective_config(config_)),
      log_(config_, trainer, gemm_flops_per_s) {
  trainer_.state.seed = static_cast<uint64_t>(config.seed);
  trainer_.state.data_fingerprint = train.fingerprint();
  if (const auto checkpoint = agreed_checkpoint())
    resume(*checkpoint);
  else
    start();
}

// Nothing where the run is new.
std::optional<Checkpoint> Run::checkpoint_to_resume() const {
  if (directory_->is_new()) return std::nullopt;
  auto checkpoint = newest_checkpoint(directory_->checkpoints(), write_warning);
  if (!checkpoint && has_checkpoints(directory_->checkpoints()))
    fail(Exit::checkpoint,
         "{}: no checkpoint is whole; restore one, or delete the directory to start the run anew",
         directory_->checkpoints().string());
  return checkpoint;
}

// What rank 0 found, and its config, whose parent may come from the run's directory.
std::optional<Checkpoint> Run::agreed_checkpoint() {
  std::optional<Checkpoint> checkpoint;
  std::string place;
  if (directory_ != nullptr) {
    const LongWork work(comm_, "looking for the newest whole checkpoint");
    checkpoint = checkpoint_to_resume();
    if (checkpoint) place = fs::absolute(checkpoint->directory).string();
  }
  comm_.broadcast(place, "the checkpoint to go on from");
  comm_.broadcast(config_text_, "the config");
  if (directory_ != nullptr) return checkpoint;
  config_ = parse_run_config(config_text_, "the config of rank 0");
  if (!place.empty()) checkpoint = resolve_checkpoint(place, [](const std::string&) {});
  return checkpoint;
}

bool Run::agreed(bool of_rank_0) {
  double flag = comm_.rank() == 0 && of_rank_0 ? 1 : 0;
  comm_.sum(std::span(&flag, 1), "the word of rank 0");
  return flag > 0;
}

void Run::say(const std::string& text) const {
  if (directory_ != nullptr) write_out(text);
}

void Run::record_event(const std::string& event, const Json& fields) {
  if (metrics_) metrics_->write_event(event, fields);
}

// Nothing is written until the parent is known to fit, so that a fork that was refused does not take the
// directory.
void Run::start() {
  check_room();
  std::optional<ForkReport> fork;
  if (config_.init.from)
    fork = fork_run(trainer_, config_, *config_.init.from, train_, validation_,
                    [this](const std::string& sentence) {
                      if (directory_ != nullptr) write_warning(sentence);
                    });
  open_log();
  if (!fork) return record_event("start", {{"step", 0}});
  const ForkReport& report = *fork;
  say(describe(report) + "\n");
  record_event("fork", {{"step", trainer_.state.step},
                        {"parent", report.parent.directory.string()},
                        {"parent_step", report.parent.step},
                        {"parent_hash", report.parent.hash},
                        {"loss_before", report.loss_before},
                        {"loss_after", report.loss_after}});
  save(true);
}

void Run::check_room() const {
  if (directory_ == nullptr) return;
  keen::check_room(disk_need(config_, trainer_.gpt.params, wide(trainer_.gpt.dtype)), path_, write_warning);
}

// From here on the directory is this run's.
void Run::open_log() {
  if (directory_ == nullptr) return;
  directory_->write_config(config_text_);
  metrics_.emplace(directory_->metrics(), write_warning);
  saver_.emplace(directory_->checkpoints(), config_.checkpoint, config_text_, trainer_, comm_, *metrics_,
                 log_, write_warning, save_begun_at_);
}

void Run::resume(const Checkpoint& checkpoint) {
  fault::moment("resume");
  trainer_.state = resume_checkpoint(checkpoint, trainer_.gpt.params);
  trainer_.weights_changed();
  if (trainer_.state.data_fingerprint != train_.fingerprint())
    fail(Exit::data,
         "data.train: {} is not the data that this run was trained on (fingerprint {}, now {}); restore it, "
         "or fork with "
         "--init-from {}",
         config_.data.train, trainer_.state.data_fingerprint, train_.fingerprint(), path_.string());
  const int64_t step = save_begun_at_ = trainer_.state.step;
  elapsed_before_s_ = trainer_.state.elapsed_s;
  Json changed = Json::object();
  bool owed = false;
  if (step < last_step()) check_room();
  if (directory_ != nullptr) {
    for (const Difference& d : differences(directory_->read_config(), config_))
      changed[d.key] = {d.left, d.right};
    open_log();
    const Metrics metrics = read_metrics(directory_->metrics());
    owed = evaluation_is_due() && lacks_validation(metrics, step);
    // A resumed run finds the spikes of an uninterrupted one.
    for (const TrainRow& row : metrics.train)
      if (row.step <= step) spikes_.take(row.loss);
  }
  evaluation_is_owed_ = agreed(owed);
  if (step >= last_step() && !evaluation_is_owed_) return;
  record_event("resume", {{"step", step}, {"changed", changed}});
  say(fmt::format("Resuming {} after step {}\n", path_.string(), step));
}

template <class Row> void Run::record(const Row& row) {
  if (metrics_) metrics_->write(row);
  if (tensorboard_) tensorboard_->write(row);
}

void Run::train() {
  if (trainer_.state.step >= last_step() && !evaluation_is_owed_) {
    say(fmt::format("{} is finished: {} of {} steps are done\n", path_.string(), trainer_.state.step,
                    config_.schedule.steps));
    return;
  }
  if (config_.log.tensorboard && directory_ != nullptr)
    tensorboard_.emplace(path_, trainer_.state.step, trainer_.state.tokens, write_warning);
  started_ = Clock::now();
  sent_before_ = comm_.bytes_sent();
  if (evaluation_is_owed_) {
    evaluate();
    if (trainer_.stop_asked()) stop_by_signal();
  }
  while (trainer_.state.step < last_step()) {
    if (saver_) saver_->poll();
    const Clock::time_point step_started = Clock::now();
    const StepResult result = trainer_.step();
    if (result.outcome == StepResult::Outcome::interrupted) stop_by_signal();
    if (result.outcome == StepResult::Outcome::non_finite) {
      skip_step(result);
      if (comm_.size() > 1 && trainer_.stop_asked()) stop_by_signal();
      continue;
    }
    skips_in_a_row_ = 0;
    record_step(result, seconds_since(step_started));
    const int64_t step = trainer_.state.step;
    const bool last = step == last_step();
    if (evaluation_is_due()) evaluate();
    if (trainer_.stop_asked()) stop_by_signal();
    if (last || save_is_due()) save(last);
  }
  Json stop = {{"step", trainer_.state.step}, {"reason", "done"}};
  if (comm_.size() > 1)
    stop["sent_bytes"] = comm_.bytes_sent() - sent_before_;  // of this rank, in these steps
  record_event("stop", stop);
  if (directory_ != nullptr) log_.finished(seconds_since(started_));
}

bool Run::evaluation_is_due() const {
  const int64_t step = trainer_.state.step;
  return trainer_.has_validation() && config_.evaluate.every > 0 &&
         (step == last_step() || step % config_.evaluate.every == 0);
}

bool Run::save_is_due() const {
  const CheckpointConfig& checkpoint = config_.checkpoint;
  const int64_t step = trainer_.state.step;
  return (checkpoint.every > 0 && step % checkpoint.every == 0) ||
         std::find(checkpoint.keep_steps.begin(), checkpoint.keep_steps.end(), step) !=
             checkpoint.keep_steps.end();
}

void Run::record_step(const StepResult& result, double step_s) {
  trainer_.state.elapsed_s = elapsed_before_s_ + seconds_since(started_);
  if (directory_ == nullptr) return;
  fault::moment("log");
  const TrainRow row = log_.row(result, step_s);
  record(row);
  if (const auto spike = spikes_.take(result.loss))
    record_event("loss_spike", {{"step", row.step},
                                {"loss", spike->loss},
                                {"median", spike->median},
                                {"deviation", spike->deviation},
                                {"z", spike->z()}});
  log_.step(row, last_step());
}

// A batch whose loss or gradients are not finite never reaches weights or averages. It is left out, or ends
// the run.
void Run::skip_step(const StepResult& result) {
  constexpr int64_t kMostInARow = 100;
  const int64_t step = trainer_.state.step + 1;
  const std::string what = result.first_bad.empty()
                               ? "the loss is not finite"
                               : fmt::format("the gradient of {} is not finite", result.first_bad);
  record_event("non_finite", {{"step", step}, {"loss", result.loss}, {"first_bad", result.first_bad}});
  ends_together_ = true;
  if (config_.non_finite == NonFinite::stop)
    fail(Exit::non_finite,
         "step {}: {} (loss {}); weights and checkpoints are untouched. Lower optimizer.lr, or set "
         "\"non_finite\": "
         "\"skip\" to leave such batches out",
         step, what, result.loss);
  if (++skips_in_a_row_ >= kMostInARow)
    fail(Exit::non_finite,
         "step {}: {} (loss {}), as in the {} batches before it; leaving out more of them will not help. "
         "Weights and "
         "checkpoints are untouched; fork from an earlier checkpoint with a lower optimizer.lr",
         step, what, result.loss, kMostInARow - 1);
  ends_together_ = false;
  ++trainer_.state.skipped_steps;
  if (directory_ != nullptr)
    write_warning(fmt::format("step {}: {}; the batch is left out ({} so far)", step, what,
                              trainer_.state.skipped_steps));
}

void Run::evaluate() {
  fault::moment("evaluate");
  const std::optional<double> loss = trainer_.validate();
  if (!loss) return;  // a signal came
  if (directory_ == nullptr) return;
  const TrainState& state = trainer_.state;
  record(ValidationRow{
      .step = state.step, .tokens = state.tokens, .loss = *loss, .perplexity = std::exp(*loss)});
  if (const AttentionRow row = log_.attention_row(); !row.layers.empty()) record(row);
  log_.validation(state.step, *loss);
}

// A save that fails is a warning while the run goes on, and an error where it `must` succeed: at its end.
void Run::save(bool must) {
  const int64_t step = trainer_.state.step;
  std::optional<LongWork> work;
  if (saver_) work.emplace(comm_, fmt::format("saving the checkpoint of step {}", step));
  if (save_begun_at_ == step) {
    if (!must) return;
    if (saver_) saver_->finish();
    if (agreed(saver_ && saver_->saved_step() == step)) return;
  }
  save_begun_at_ = step;
  if (tensorboard_) tensorboard_->flush();
  if (saver_)
    saver_->save(must);
  else
    serve_pieces(trainer_.gpt.params, comm_);
  agreed(true);  // here the others wait for as long as it takes, and none leaves before a last checkpoint is
                 // there
}

void Run::complete_save() noexcept {
  if (!saver_) return;
  const LongWork work(comm_, "completing a save");
  try {
    saver_->finish();
  } catch (const std::exception& error) {
    write_warning(fmt::format("not saved: {}", error.what()));
  }
}

void Run::stop_by_signal() {
  const int signal = stop_signal();
  save(true);
  Json stop = {{"step", trainer_.state.step}, {"reason", "signal"}};
  if (signal != 0) stop["signal"] = signal;  // else it came to another rank
  record_event("stop", stop);
  ends_together_ = true;
  fail(Exit::stopped,
       "stopped by {} after step {}; the state is saved, and the same command goes on from there",
       signal != 0 ? fmt::format("signal {}", signal) : "a signal to another rank", trainer_.state.step);
}

}  // namespace keen
