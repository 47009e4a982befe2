#include "eval/checkpoint_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/console.h"
#include "io/json.h"

namespace keen {

LoadedConfig load_checkpoint_config(const std::string& path, std::vector<std::string> sets,
                                    std::optional<double> rope_theta) {
  constexpr std::array<std::string_view, 6> kFree = {"device",           "precision",
                                                     "attention_path",   "model.attention",
                                                     "model.rope_theta", "batch.micro_sequences"};
  for (const std::string& set : sets) {
    const std::string key = set.substr(0, set.find('='));
    if (std::find(kFree.begin(), kFree.end(), key) == kFree.end())
      fail(Exit::usage,
           "--set {}: a trained model cannot be looked at with another {}; what can be set here is device, "
           "precision, "
           "attention_path, model.attention, model.rope_theta and batch.micro_sequences",
           set, key);
  }
  if (rope_theta) sets.push_back(fmt::format("model.rope_theta={}", *rope_theta));
  LoadedConfig loaded;
  loaded.checkpoint = resolve_checkpoint(path, [](const std::string& sentence) { write_warning(sentence); });
  loaded.config = checkpoint_config(loaded.checkpoint, sets);
  if (rope_theta && loaded.config.model.position != PositionKind::rope)
    fail(Exit::usage, "--rope-theta {}: {} has no RoPE (its model.position is {})", *rope_theta, path,
         kPositionNames[static_cast<size_t>(loaded.config.model.position)]);
  return loaded;
}

void expect_positions(const LoadedConfig& loaded, const std::string& path, int64_t context) {
  const ModelConfig& model = loaded.config.model;
  if (model.position == PositionKind::learned && context > model.context)
    fail(Exit::usage,
         "context {}: {} has learned positions for {} tokens and cannot read further; ask for at most {}",
         context, path, model.context, model.context);
}

std::vector<std::string> swapped_tensors(const LoadReport& report) {
  std::vector<std::string> swapped;
  for (const TensorFate& fate : report) {
    if (fate.kind == TensorFate::Kind::loaded) continue;
    const std::string value = fate.initial.empty() ? "" : " = " + fate.initial;
    swapped.push_back(fmt::format("{} {}{}", name_of(fate.kind), fate.name, value));
  }
  return swapped;
}

Sample sample_of(const LoadedConfig& loaded) {
  const RunConfig trained = checkpoint_config(loaded.checkpoint);
  Json rest = to_json(trained);
  for (const char* key : {"name", "seed", "log", "checkpoint"}) rest.erase(key);
  return {fmt::format("{} {}", loaded.checkpoint.step, json_line(rest)), static_cast<int64_t>(trained.seed)};
}

std::vector<std::vector<size_t>> groups_of(const std::vector<Sample>& samples) {
  std::vector<std::vector<size_t>> groups;
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto belongs = [&](const std::vector<size_t>& group) {
      return std::ranges::all_of(group, [&](size_t other) {
        return samples[other].rest == samples[i].rest && samples[other].seed != samples[i].seed;
      });
    };
    const auto group = std::ranges::find_if(groups, belongs);
    if (group != groups.end())
      group->push_back(i);
    else
      groups.push_back({i});
  }
  return groups;
}

}  // namespace keen
