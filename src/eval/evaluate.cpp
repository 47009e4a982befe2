#include "eval/evaluate.h"

#include <cmath>
#include <numeric>

#include "core/console.h"
#include "eval/checkpoint_config.h"
#include "eval/moments.h"
#include "train/forward_model.h"
#include "train/trainer.h"

namespace keen {

namespace {

// A field of a CSV file (RFC 4180).
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

std::vector<std::pair<int64_t, int64_t>> position_buckets(int64_t T) {
  std::vector<std::pair<int64_t, int64_t>> buckets;
  for (int64_t first = 1; first <= T;) {
    const auto last = std::min(T, static_cast<int64_t>(static_cast<double>(first) * std::exp2(1.0 / 8)));
    buckets.emplace_back(first, last);
    first = last + 1;
  }
  return buckets;
}

Evaluation evaluate_checkpoint(const std::string& path, const EvaluateOptions& options) {
  const LoadedConfig loaded = load_checkpoint_config(path, options.sets, options.rope_theta);
  const RunConfig& config = loaded.config;
  const Device device = resolve_device(config.device);
  const DType dtype = resolve_precision(config.precision, device);
  const int64_t T = options.context > 0 ? options.context : config.model.context;
  const Dataset data(options.data, config.model.vocab_size);
  const SequentialWindows windows(data, T);
  const int64_t group = config.batch.micro_sequences;
  const int64_t count = options.batches > 0 ? windows_of(windows, options.batches, group) : windows.count();
  // Windows in one pass: as many tokens as a training micro-batch, so that memory does not grow with the
  // context.
  const int64_t B = std::clamp<int64_t>(group * config.model.context / T, 1, count);

  const ops::AttentionPath attention =
      resolve_attention_path(config.attention_path, device, dtype, config.model.head_width());
  ForwardModel model(config.model, device, dtype, attention, B, T);
  Evaluation result{
      .checkpoint = path,
      .step = loaded.checkpoint.step,
      .trained_context = config.model.context,
      .context = T,
      .windows = count,
      .tokens = count * T,
      .positions = {},
      .buckets = {},
      .swapped = swapped_tensors(model.load(loaded.checkpoint, static_cast<uint64_t>(config.seed)))};

  std::vector<Moments> positions(static_cast<size_t>(T));
  const auto ranges = position_buckets(T);
  std::vector<Moments> buckets(ranges.size());
  Progress progress(fmt::format("evaluating {}", path), count * T, "tokens");
  model.visit_losses(windows, count, [&](int64_t window, std::span<const double> losses) {
    for (size_t t = 0; t < losses.size(); ++t) positions[t].add(losses[t]);
    for (size_t i = 0; i < ranges.size(); ++i) {
      const auto [first, last] = ranges[i];
      buckets[i].add(std::accumulate(losses.begin() + first - 1, losses.begin() + last, 0.0) /
                     static_cast<double>(last - first + 1));
    }
    progress.update((window + 1) * T);
  });
  progress.finish();

  for (size_t t = 0; t < positions.size(); ++t) {
    result.loss += positions[t].mean / static_cast<double>(T);
    result.positions.push_back(
        {static_cast<int64_t>(t) + 1, positions[t].mean, positions[t].standard_error()});
  }
  for (size_t i = 0; i < ranges.size(); ++i)
    result.buckets.push_back(
        {ranges[i].first, ranges[i].second, buckets[i].mean, buckets[i].standard_error()});
  result.perplexity = std::exp(result.loss);
  return result;
}

std::string positions_csv(const std::vector<Evaluation>& evaluations) {
  const bool several = evaluations.size() > 1;
  std::string csv = several ? "checkpoint,position,loss,stderr,windows\n" : "position,loss,stderr,windows\n";
  for (const Evaluation& evaluation : evaluations)
    for (const PositionLoss& p : evaluation.positions)
      csv += fmt::format(
          "{}{},{:.9g},{},{}\n", several ? csv_field(evaluation.checkpoint) + "," : "", p.position, p.loss,
          std::isnan(p.standard_error) ? "" : fmt::format("{:.9g}", p.standard_error), evaluation.windows);
  return csv;
}

}  // namespace keen
