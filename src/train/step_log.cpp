#include "train/step_log.h"

#include <cmath>
#include <cstdio>

#include "core/console.h"

namespace keen {

namespace {

// "6.0e-4": as {:.Ne}, the exponent without leading zeros and plus.
std::string scientific(double x, int digits) {
  std::string text = fmt::format("{:.{}e}", x, digits);
  const size_t e = text.find('e');
  if (e == text.npos) return text;
  const bool negative = text[e + 1] == '-';
  size_t first = e + 2;
  while (first + 1 < text.size() && text[first] == '0') ++first;
  return text.substr(0, e + 1) + (negative ? "-" : "") + text.substr(first);
}

// A number from 0 on in `width` characters, with a point and as many digits as fit; as 3.1e-4 or 1.2e+6 would
// be where a fixed point shows less than two digits of it, or none.
std::string in_columns(double x, int width) {
  if (!std::isfinite(x)) return x > 0 ? "inf" : "nan";
  if (x < 0) return scientific(x, 1);
  const int before = x < 9.99995 ? 1 : static_cast<int>(std::floor(std::log10(x))) + 1;
  const int after = width - before - 1;
  if (x != 0 && (x < 20 * std::pow(10, -after) || after < 0)) return scientific(x, width - 5);
  std::string text = fmt::format("{:.{}f}", x, after);
  if (static_cast<int>(text.size()) > width) text.pop_back();  // 99.99996 has become one longer
  if (text.ends_with('.')) text.pop_back();
  return text;
}

std::string step_time(double ms) {
  if (!std::isfinite(ms)) return "-";
  if (ms < 9.95) return fmt::format("{:.1f}ms", ms);
  if (ms < 999.5) return fmt::format("{:.0f}ms", ms);
  return fmt::format("{:.{}f}s", ms / 1e3, ms < 9995 ? 2 : ms < 99950 ? 1 : 0);
}

}  // namespace

std::string step_line(const StepLine& line) {
  const int digits = static_cast<int>(std::to_string(line.last_step).size());
  // Not 100 % before the last step.
  const int64_t percent = line.last_step > 0 ? 100 * line.step / line.last_step : 0;
  const std::string mfu = line.mfu < 9.995 ? fmt::format("{:.0f}%", 100 * line.mfu) : "-";
  return fmt::format("{:>{}}/{} {:>3}% {:>5} loss {:<6} |g| {:<5} lr {:<6} {:>5} {:>5}/s {:>3} {}", line.step,
                     digits, line.last_step, percent, short_count(static_cast<double>(line.tokens)),
                     in_columns(line.loss, 6), in_columns(line.grad_norm, 5), scientific(line.lr, 1),
                     step_time(line.step_ms), short_count(line.tokens_per_s), mfu,
                     short_duration(line.left_s));
}

StepLog::StepLog(const RunConfig& config, const Trainer& trainer, double gemm_flops_per_s)
    : config_(config),
      trainer_(trainer),
      gemm_flops_per_s_(gemm_flops_per_s),
      terminal_(can_redraw(stdout)),
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
  const std::string text = step_line({.step = row.step,
                                      .last_step = last_step,
                                      .tokens = row.tokens,
                                      .loss = row.loss,
                                      .grad_norm = row.grad_norm,
                                      .lr = row.lr,
                                      .step_ms = step_ms,
                                      .tokens_per_s = tokens_per_s,
                                      .mfu = mfu,
                                      .left_s = left_ms / 1e3});
  if (!due) return live(text);
  line(text);
  steps_since_line_ = 0;
  ms_since_line_ = 0;
}

void StepLog::validation(int64_t step, double loss) {
  line(
      styled(fmt::format("validation at step {}: loss {:.4f}, perplexity {:.2f}", step, loss, std::exp(loss)),
             Style::bold, colour_));
}

void StepLog::saved(int64_t step) {
  line(styled(fmt::format("saved checkpoint of step {}", step), Style::dim, colour_));
}

void StepLog::finished(double elapsed_s) {
  line(fmt::format("done: {} tokens in {}", short_count(static_cast<double>(trainer_.state.tokens)),
                   duration(elapsed_s)));
}

void StepLog::line(const std::string& text) {
  write_out(fmt::format("{}{}\n", clear_line(stdout), text));
  std::fflush(stdout);
}

void StepLog::live(const std::string& text) {
  constexpr auto kPause = std::chrono::milliseconds(100);
  const Clock::time_point now = Clock::now();
  if (now - drawn_ < kPause) return;
  drawn_ = now;
  write_out(fmt::format("{}{}", clear_line(stdout), shortened(text, console_width(stdout) - 1)));
  std::fflush(stdout);
}

}  // namespace keen
