#include "eval/evaluate.h"

#include <cmath>
#include <deque>
#include <numeric>

#include "core/console.h"
#include "eval/decoder.h"
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

namespace {

// A checkpoint and the windows that it is to read. Everything that can be wrong with them is found when this
// is made, before any model is loaded.
struct Prepared {
  std::string name;
  LoadedConfig loaded;
  Device device;
  DType dtype;
  ops::AttentionPath attention;
  Dataset data;
  SequentialWindows windows;

  Prepared(const std::string& checkpoint, const EvaluateOptions& options)
      : name(checkpoint),
        loaded(load_checkpoint_config(checkpoint, options.sets, options.rope_theta)),
        device(resolve_device(loaded.config.device)),
        dtype(resolve_precision(loaded.config.precision, device)),
        attention(resolve_attention_path(loaded.config.attention_path, device, dtype,
                                         loaded.config.model.head_width())),
        data(options.data, loaded.config.model.vocab_size),
        windows(data, options.context > 0 ? options.context : loaded.config.model.context) {
    expect_positions(loaded, name, windows.context());
  }
};

Evaluation evaluate(const Prepared& prepared, int64_t count) {
  const RunConfig& config = prepared.loaded.config;
  const int64_t T = prepared.windows.context();
  const int64_t B = texts_together(config, T, count);
  ForwardModel model(config.model, prepared.device, prepared.dtype, prepared.attention, B, T);
  Evaluation result{
      .checkpoint = prepared.name,
      .step = prepared.loaded.checkpoint.step,
      .trained_context = config.model.context,
      .context = T,
      .windows = count,
      .tokens = count * T,
      .positions = {},
      .buckets = {},
      .swapped = swapped_tensors(model.load(prepared.loaded.checkpoint, static_cast<uint64_t>(config.seed))),
      .sample = sample_of(prepared.loaded)};

  std::vector<Moments> positions(static_cast<size_t>(T));
  const auto ranges = position_buckets(T);
  std::vector<Moments> buckets(ranges.size());
  Progress progress(fmt::format("evaluating {}", prepared.name), count * T, "tokens");
  model.visit_losses(prepared.windows, count, [&](int64_t window, std::span<const double> losses) {
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

}  // namespace

std::vector<Evaluation> evaluate_checkpoints(const std::vector<std::string>& checkpoints,
                                             const EvaluateOptions& options) {
  std::deque<Prepared> prepared;  // which does not move what refers to its parts
  for (const std::string& checkpoint : checkpoints) prepared.emplace_back(checkpoint, options);
  std::vector<Evaluation> evaluations;
  for (const Prepared& each : prepared) {
    const int64_t group = prepared.front().loaded.config.batch.micro_sequences;
    evaluations.push_back(evaluate(
        each, options.batches > 0 ? windows_of(each.windows, options.batches, group) : each.windows.count()));
  }
  return evaluations;
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
