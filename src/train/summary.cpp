#include "train/summary.h"

#include <algorithm>

namespace keen {

std::string model_summary(const ModelConfig& model) {
  return fmt::format("{} layers x {}, {} heads{}, {}/{}/{}, context {}", model.layers, model.width,
                     model.heads,
                     model.kv_heads == model.heads ? "" : fmt::format(" ({} kv)", model.kv_heads),
                     kNormNames[static_cast<size_t>(model.norm)], kMlpNames[static_cast<size_t>(model.mlp)],
                     kPositionNames[static_cast<size_t>(model.position)], model.context);
}

namespace {

struct Run {
  std::string kind;
  size_t first, last;
};

// Equal neighbours of the first `count` layers, together.
std::vector<Run> runs_of(const std::vector<LayerAttention>& layers, size_t count) {
  std::vector<Run> runs;
  for (size_t i = 0; i < count; ++i) {
    if (runs.empty() || runs.back().kind != layers[i].kind)
      runs.push_back({layers[i].kind, i, i});
    else
      runs.back().last = i;
  }
  return runs;
}

// "softmax, ssmax x3": the first `count` layers by their numbers.
std::string counted(const std::vector<LayerAttention>& layers, size_t count) {
  std::string text;
  for (const auto& [kind, first, last] : runs_of(layers, count))
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ", kind,
                        first == last ? "" : fmt::format(" x{}", last - first + 1));
  return text;
}

// "softmax 0, ssmax 1-3".
std::string placed(const std::vector<LayerAttention>& layers) {
  std::string text;
  for (const auto& [kind, first, last] : runs_of(layers, layers.size()))
    text += fmt::format("{}{} {}{}", text.empty() ? "" : ", ", kind, first,
                        first == last ? "" : fmt::format("-{}", last));
  return text;
}

}  // namespace

std::string attention_summary(const std::vector<LayerAttention>& layers) {
  const size_t count = layers.size();
  if (runs_of(layers, count).size() == 1) return layers[0].kind;
  const std::string numbers = placed(layers);
  for (size_t period = 2; 2 * period <= count; ++period) {
    bool repeats = true;
    for (size_t i = period; i < count; ++i) repeats = repeats && layers[i].kind == layers[i - period].kind;
    if (!repeats) continue;
    const std::string rest = counted(layers, count % period);
    const std::string text =
        fmt::format("({}) x{}{}{}", counted(layers, period), count / period, rest.empty() ? "" : ", ", rest);
    return text.size() < numbers.size() ? text : numbers;
  }
  return numbers;
}

void add_training_facts(Facts& facts, const RunConfig& config, const Gpt& gpt, int64_t ranks) {
  const int64_t T = config.model.context, per_step = config.batch.sequences * T;
  facts.add("parameters", fmt::format("{} ({} FLOPs a token)", with_commas(gpt.params.count()),
                                      short_count(gpt.flops_per_token(T))));
  facts.add("batch",
            fmt::format("{} sequences x {} = {} tokens a step ({} x {} rank{} x {} accumulated)",
                        config.batch.sequences, T, with_commas(per_step), config.batch.micro_sequences, ranks,
                        ranks == 1 ? "" : "s", accumulation(config, ranks)));
  facts.add(
      "training",
      fmt::format("{} steps = {} tokens, {} schedule, lr {:g}", with_commas(config.schedule.steps),
                  short_count(static_cast<double>(config.schedule.steps) * static_cast<double>(per_step)),
                  name_of(config.schedule.kind), config.optimizer.lr));
}

std::string folded_name(const std::string& name) {
  if (!name.starts_with("blocks.")) return name;
  const size_t dot = name.find('.', 7);
  return dot == name.npos ? name : "blocks.*" + name.substr(dot);
}

Table parameter_table(const Gpt& gpt) {
  struct Row {
    std::string name, shape, note;
    int64_t tensors, count;
  };
  std::vector<Row> rows;
  for (const Param& p : gpt.params.all()) {
    const std::string note = !p.learned ? "fixed" : p.decays() ? "decays" : "";
    const std::string name = folded_name(p.name), shape = to_string(p.shape);
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const Row& r) {
      return r.name == name && r.shape == shape && r.note == note;
    });
    if (same == rows.end()) {
      rows.push_back({name, shape, note, 1, p.count()});
    } else {
      ++same->tensors;
      same->count += p.count();
    }
  }
  Table table({"parameter", "shape", "tensors", "elements", "weight decay"});
  table.left_aligned(1);
  table.left_aligned(4);
  for (const Row& row : rows)
    table.add({row.name, row.shape, std::to_string(row.tensors), with_commas(row.count), row.note});
  table.add({"total", "", std::to_string(gpt.params.all().size()), with_commas(gpt.params.count()), ""});
  return table;
}

}  // namespace keen
