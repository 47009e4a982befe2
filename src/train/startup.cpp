#include "train/startup.h"

#include <oneapi/dnnl/dnnl_version.h>

#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "core/console.h"
#include "core/parallel.h"
#include "core/version.h"

namespace keen {

namespace {

// "softmax", or "softmax x3, ssmax x9" in the order of first appearance.
std::string attention_summary(const std::vector<LayerAttention>& layers) {
  std::vector<std::pair<std::string, int>> kinds;
  for (const LayerAttention& layer : layers) {
    if (kinds.empty() || kinds.back().first != layer.kind) {
      const auto seen =
          std::find_if(kinds.begin(), kinds.end(), [&](const auto& k) { return k.first == layer.kind; });
      if (seen != kinds.end()) {
        ++seen->second;
        continue;
      }
      kinds.emplace_back(layer.kind, 0);
    }
    ++kinds.back().second;
  }
  if (kinds.size() == 1) return kinds[0].first;
  std::string text;
  for (const auto& [kind, count] : kinds)
    text += fmt::format("{}{} x{}", text.empty() ? "" : ", ", kind, count);
  return text;
}

// What is left of the console beside the indent and the labels of the start-up table.
constexpr size_t kValueWidth = kConsoleWidth - 14;

// The space at which a line of at most `width` bytes ends best: after a comma, before a parenthesis, or any
// other.
size_t place_to_break(const std::string& line, size_t width) {
  const size_t comma = line.rfind(", ", width - 1), parenthesis = line.rfind(" (", width);
  if (comma != std::string::npos && (parenthesis == std::string::npos || comma > parenthesis))
    return comma + 1;
  return parenthesis != std::string::npos ? parenthesis : line.rfind(' ', width);
}

std::string data_summary(const Dataset& data, int64_t context) {
  return fmt::format("{} tokens in {} shard{}, {} windows", short_count(static_cast<double>(data.tokens())),
                     data.shards().size(), data.shards().size() == 1 ? "" : "s",
                     with_commas(SequentialWindows(data, context).count()));
}

int64_t total_bytes(const std::vector<MemoryUse>& memory) {
  int64_t bytes = 0;
  for (const MemoryUse& use : memory) bytes += use.bytes;
  return bytes;
}

// Masters and two averages of everything that is learned.
int64_t checkpoint_bytes(const Gpt& gpt) { return 3 * gpt.params.count() * size_of(wide(gpt.dtype)); }

// "blocks.7.attn.s" as "blocks.*.attn.s".
std::string folded(const std::string& name) {
  if (!name.starts_with("blocks.")) return name;
  return "blocks.*" + name.substr(name.find('.', 7));
}

std::string parameter_table(const Gpt& gpt) {
  struct Row {
    std::string name, shape, note;
    int64_t tensors, count;
  };
  std::vector<Row> rows;
  for (const Param& p : gpt.params.all()) {
    const std::string note = !p.learned ? "fixed" : p.decays() ? "decays" : "";
    const std::string name = folded(p.name), shape = to_string(p.shape);
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
  return table.str(2);
}

}  // namespace

std::string startup_table(const StartupFacts& facts) {
  const RunConfig& config = facts.config;
  const ModelConfig& model = config.model;
  const Gpt& gpt = facts.trainer.gpt;
  const int64_t T = model.context, per_step = facts.trainer.tokens_per_step();
  Table table;
  table.left_aligned(1);
  const auto add = [&](const char* what, std::string value) {
    while (value.size() > kValueWidth) {
      const size_t at = place_to_break(value, kValueWidth);
      if (at == std::string::npos) break;
      table.add({std::exchange(what, ""), value.substr(0, at)});
      value.erase(0, at + 1);
    }
    table.add({what, value});
  };

  add("run", config.name);
  add("model",
      fmt::format("{} layers x {}, {} heads{}, {}/{}/{}, context {}", model.layers, model.width, model.heads,
                  model.kv_heads == model.heads ? "" : fmt::format(" ({} kv)", model.kv_heads),
                  kNormNames[static_cast<size_t>(model.norm)], kMlpNames[static_cast<size_t>(model.mlp)],
                  kPositionNames[static_cast<size_t>(model.position)], T));
  add("attention", attention_summary(model.attention));
  add("parameters", fmt::format("{} ({} FLOPs a token)", with_commas(gpt.params.count()),
                                short_count(gpt.flops_per_token(T))));
  add("batch", fmt::format("{} sequences x {} = {} tokens a step ({} x {} rank{} x {} accumulated)",
                           config.batch.sequences, T, with_commas(per_step), config.batch.micro_sequences,
                           facts.ranks, facts.ranks == 1 ? "" : "s", accumulation(config, facts.ranks)));
  add("training",
      fmt::format("{} steps = {} tokens, {} schedule, lr {:g}", with_commas(config.schedule.steps),
                  short_count(static_cast<double>(config.schedule.steps * per_step)),
                  name_of(config.schedule.kind), config.optimizer.lr));
  add("data", data_summary(facts.train, T) +
                  fmt::format(" ({:.2f} epochs)",
                              static_cast<double>(config.schedule.steps) *
                                  static_cast<double>(config.batch.sequences) /
                                  static_cast<double>(SequentialWindows(facts.train, T).count())));
  add("validation", facts.validation == nullptr ? "none" : data_summary(*facts.validation, T));
  const std::string rate =
      facts.gemm_flops_per_s > 0 ? fmt::format(", GEMM {:.0f} GFLOP/s", facts.gemm_flops_per_s / 1e9) : "";
  const int threads = omp_get_max_threads();
  add("device", fmt::format("{}, {}, {} thread{}{}", name_of(facts.trainer.device()), name_of(gpt.dtype),
                            threads, threads == 1 ? "" : "s", rate));
  const std::vector<MemoryUse> uses = facts.trainer.memory();
  std::vector<std::string> parts;
  for (const MemoryUse& use : uses)
    parts.push_back(fmt::format("{} {}", use.category, short_bytes(use.bytes)));
  add("memory", fmt::format("{}: {}", short_bytes(total_bytes(uses)), fmt::join(parts, ", ")));
  return table.str(2);
}

std::string dry_run_report(const StartupFacts& facts) {
  const Gpt& gpt = facts.trainer.gpt;
  const CheckpointConfig& checkpoint = facts.config.checkpoint;
  const int64_t one = checkpoint_bytes(gpt);
  const int64_t many = one * (checkpoint.keep + 1 + std::ssize(checkpoint.keep_steps));
  Table memory({"memory", "bytes", ""});
  for (const MemoryUse& use : facts.trainer.memory())
    memory.add({use.category, with_commas(use.bytes), short_bytes(use.bytes)});
  const int64_t total = total_bytes(facts.trainer.memory());
  memory.add({"total", with_commas(total), short_bytes(total)});
  Table numbers;
  numbers.add({"tokens a step", with_commas(facts.trainer.tokens_per_step())});
  numbers.add({"FLOPs a token", with_commas(static_cast<int64_t>(gpt.flops_per_token(gpt.config.context)))});
  numbers.add({"one checkpoint, bytes", with_commas(one)});
  numbers.add({"disk for checkpoints, bytes", with_commas(many)});
  return fmt::format(
      "Effective config\n\n{}\nParameters\n\n{}\nMemory that keen allocates (the GEMM library's code "
      "and caches come beside it)\n\n{}\nArithmetic\n\n{}\nThe run\n\n{}",
      effective_config(facts.config), parameter_table(gpt), memory.str(2), numbers.str(2),
      startup_table(facts));
}

Json environment_json(const StartupFacts& facts) {
  Json memory = Json::object();
  for (const MemoryUse& use : facts.trainer.memory()) memory[use.category] = use.bytes;
  return {{"keen", kVersion},
          {"revision", kRevision},
          {"compiler", kCompiler},
          {"onednn", fmt::format("{}.{}.{}", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH)},
          {"device", name_of(facts.trainer.device())},
          {"precision", name_of(facts.trainer.gpt.dtype)},
          {"cores", std::thread::hardware_concurrency()},
          {"threads", omp_get_max_threads()},
          {"ranks", facts.ranks},
          {"gemm_flops_per_s", facts.gemm_flops_per_s},
          {"parameters", facts.trainer.gpt.params.count()},
          {"flops_per_token", facts.trainer.gpt.flops_per_token(facts.config.model.context)},
          {"memory_bytes", memory},
          {"data",
           {{"train",
             {{"pattern", facts.train.pattern()},
              {"tokens", facts.train.tokens()},
              {"fingerprint", facts.train.fingerprint()}}},
            {"validation", facts.validation == nullptr
                               ? Json()
                               : Json{{"pattern", facts.validation->pattern()},
                                      {"tokens", facts.validation->tokens()},
                                      {"fingerprint", facts.validation->fingerprint()}}}}}};
}

}  // namespace keen
