#include "train/step_log.h"

#include <unistd.h>

#include <cstdio>

#include "core/console.h"

namespace keen {

StepLog::StepLog(const RunConfig& config, const Trainer& trainer, double gemm_flops_per_s)
    : config_(config),
      trainer_(trainer),
      gemm_flops_per_s_(gemm_flops_per_s),
      terminal_(isatty(STDOUT_FILENO) != 0),
      colour_(colour_wanted(stdout)) {}

TrainRow StepLog::row(const StepResult& result, double step_s) const {
  const double tokens_per_s = static_cast<double>(trainer_.tokens_per_step()) / step_s;
  return {.step = trainer_.state.step,
          .tokens = trainer_.state.tokens,
          .loss = result.loss,
          .grad_norm = result.grad_norm,
          .lr = result.lr,
          .step_ms = step_s * 1e3,
          .tokens_per_s = tokens_per_s,
          .mfu = tokens_per_s * trainer_.gpt.flops_per_token(config_.model.context) / gemm_flops_per_s_,
          .elapsed_s = trainer_.state.elapsed_s};
}

AttentionRow StepLog::attention_row() const {
  const auto values = [](const Param* param) {
    return param == nullptr ? std::vector<double>{} : to_doubles(param->master);
  };
  AttentionRow row{.step = trainer_.state.step, .layers = {}};
  for (size_t layer = 0; layer < trainer_.gpt.blocks.size(); ++layer) {
    const Block& block = trainer_.gpt.blocks[layer];
    if (block.s != nullptr)
      row.layers.push_back({static_cast<int64_t>(layer), values(block.s), values(block.b)});
  }
  return row;
}

void StepLog::step(const TrainRow& row, int64_t last_step) {
  ++steps_since_line_;
  ms_since_line_ += row.step_ms;
  // The first step is slower than all others (libraries compile their kernels), and is left out of the mean.
  const double weight = mean_step_ms_ == 0 ? 1 : 0.05;
  if (!first_) mean_step_ms_ += weight * (row.step_ms - mean_step_ms_);
  const bool due = first_ || row.step == last_step || row.step % config_.log.every == 0;
  first_ = false;
  if (!due && !terminal_) return;

  const double step_ms = ms_since_line_ / static_cast<double>(steps_since_line_);
  const double tokens_per_s = static_cast<double>(trainer_.tokens_per_step()) / step_ms * 1e3;
  const double mfu = row.mfu * tokens_per_s / row.tokens_per_s;
  const double left_ms =
      (mean_step_ms_ > 0 ? mean_step_ms_ : row.step_ms) * static_cast<double>(last_step - row.step);
  const int digits = static_cast<int>(std::to_string(last_step).size());
  line(
      fmt::format(
          "{:>{}}/{} {:>3.0f}% {:>6} loss {:.4f} |g| {:<5.3g} lr {:.1e} {:>4.0f}ms {:>5}/s {:>2.0f}% {}",
          row.step, digits, last_step, 100.0 * static_cast<double>(row.step) / static_cast<double>(last_step),
          short_count(static_cast<double>(row.tokens)), row.loss, row.grad_norm, row.lr, step_ms,
          short_count(tokens_per_s), 100 * mfu, duration(left_ms / 1e3)),
      !due);
  if (!due) return;
  steps_since_line_ = 0;
  ms_since_line_ = 0;
}

void StepLog::validation(int64_t step, double loss) {
  line(
      styled(fmt::format("validation at step {}: loss {:.4f}, perplexity {:.2f}", step, loss, std::exp(loss)),
             Style::bold, colour_),
      false);
}

void StepLog::saved(int64_t step) {
  line(styled(fmt::format("saved checkpoint of step {}", step), Style::dim, colour_), false);
}

void StepLog::finished(double elapsed_s) {
  line(fmt::format("done: {} tokens in {}", short_count(static_cast<double>(trainer_.state.tokens)),
                   duration(elapsed_s)),
       false);
}

void StepLog::line(const std::string& text, bool live) {
  std::string out = live_line_ ? "\r\x1b[K" : "";
  out += text;
  if (!live) out += "\n";
  write_out(out);
  std::fflush(stdout);
  live_line_ = live;
}

}  // namespace keen
