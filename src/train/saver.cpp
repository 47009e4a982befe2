#include "train/saver.h"

#include "io/fault.h"

namespace keen {

namespace {

double ms_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

Saver::Saver(std::filesystem::path checkpoints, const CheckpointConfig& config, std::string config_text,
             Trainer& trainer, Communicator& comm, MetricsWriter& metrics, StepLog& log, Warn warn,
             int64_t saved_step)
    : checkpoints_(std::move(checkpoints)),
      config_(config),
      config_text_(std::move(config_text)),
      trainer_(trainer),
      comm_(comm),
      metrics_(metrics),
      log_(log),
      warn_(std::move(warn)),
      saved_step_(saved_step) {}

void Saver::save(bool must) {
  const Clock::time_point begun = Clock::now();
  finish();
  SaveRequest request{.params = trainer_.gpt.params,
                      .state = trainer_.state,
                      .config = config_text_,
                      .comm = &comm_,
                      .keep = config_.keep,
                      .keep_steps = config_.keep_steps};
  if (trainer_.snapshot) {
    fault::moment("snapshot");
    PieceReader pieces(trainer_.gpt.params, &comm_);
    trainer_.snapshot->take(pieces);
    request.snapshot = &*trainer_.snapshot;
  }
  const bool waits = must || request.snapshot == nullptr;
  const auto write = [this, request] {
    metrics_.sync();
    save_checkpoint(checkpoints_, request, warn_);
    return Clock::now();
  };
  // What is deferred runs in the thread that waits for it.
  pending_.emplace(Pending{
      .step = request.state.step,
      .begun = begun,
      .stall_ms = std::nullopt,
      .written =
          std::async(request.snapshot != nullptr ? std::launch::async : std::launch::deferred, write)});
  if (waits) return finish(must);
  pending_->stall_ms = ms_between(begun, Clock::now());
}

void Saver::poll() {
  if (pending_ && pending_->written.wait_for(std::chrono::seconds(0)) == std::future_status::ready) finish();
}

void Saver::finish(bool must) {
  if (!pending_) return;
  Pending save = std::move(*pending_);
  pending_.reset();
  Clock::time_point written;
  try {
    written = save.written.get();
  } catch (const Error& error) {
    if (must || error.exit != Exit::storage) throw;
    return failed(save.step, error);
  }
  saved_step_ = save.step;
  const double save_ms = ms_between(save.begun, written);
  metrics_.write_event(
      "save",
      {{"step", save.step}, {"save_stall_ms", save.stall_ms.value_or(save_ms)}, {"save_ms", save_ms}});
  log_.saved(save.step);
}

void Saver::failed(int64_t step, const Error& error) {
  int64_t& failed_saves = trainer_.state.failed_saves;
  ++failed_saves;
  metrics_.write_event("save_failed", {{"step", step}, {"reason", error.what()}});
  warn_(fmt::format("step {}: {}; training goes on (failed saves so far: {})", step, error.what(),
                    failed_saves));
}

}  // namespace keen
