#include <map>
#include <set>

#include "report/compare.h"
#include "report/compare_columns.h"

namespace keen {

namespace {

// Every leaf by its dotted key; lists are leaves.
void flatten(const Json& value, const std::string& key,
             std::vector<std::pair<std::string, std::string>>& out) {
  if (!value.is_object()) return out.emplace_back(key, json_line(value)), void();
  for (const auto& [name, inner] : value.items()) flatten(inner, key.empty() ? name : key + "." + name, out);
}

// The keys of environment.json that may change results or speed.
Json telling_part(const Json& environment) {
  Json part = Json::object();
  for (const char* key : {"device", "precision", "ranks", "threads", "keen", "revision"})
    if (environment.contains(key)) part[key] = environment[key];
  const auto data = environment.find("data");
  if (data == environment.end() || !data->is_object()) return part;
  for (const auto& [split, facts] : data->items())
    if (facts.is_object() && facts.contains("fingerprint"))
      part["data"][split]["fingerprint"] = facts["fingerprint"];
  return part;
}

// The keys in which the objects differ; those that are no objects take no part.
void add_differences(const std::vector<Json>& objects, const std::string& prefix,
                     std::vector<ConfigDifference>& differences) {
  std::vector<std::map<std::string, std::string>> values(objects.size());
  std::vector<std::string> order;
  std::set<std::string> known;
  for (size_t i = 0; i < objects.size(); ++i) {
    if (!objects[i].is_object()) continue;
    std::vector<std::pair<std::string, std::string>> leaves;
    flatten(objects[i], prefix, leaves);
    for (const auto& [key, value] : leaves) {
      values[i][key] = value;
      if (known.insert(key).second) order.push_back(key);
    }
  }
  for (const std::string& key : order) {
    if (key == "name") continue;
    ConfigDifference difference{key, {}};
    std::set<std::optional<std::string>> distinct;
    for (size_t i = 0; i < objects.size(); ++i) {
      const auto at = values[i].find(key);
      difference.values.push_back(at == values[i].end() ? std::nullopt : std::optional(at->second));
      if (objects[i].is_object()) distinct.insert(difference.values.back());
    }
    if (distinct.size() > 1) differences.push_back(std::move(difference));
  }
}

// What two runs of one group have in common, as text; nothing for a run that cannot be in one.
std::optional<std::string> all_but_the_seed(const RunRecord& run) {
  if (!run.config.is_object() || !run.config.contains("seed")) return std::nullopt;
  Json rest = run.config;
  for (const char* key : {"name", "seed", "log", "checkpoint"}) rest.erase(key);
  if (rest.contains("data") && rest["data"].is_object()) {
    if (run.train_fingerprint) rest["data"]["train"] = *run.train_fingerprint;
    if (run.validation_fingerprint) rest["data"]["validation"] = *run.validation_fingerprint;
  }
  if (run.environment.is_object())
    for (const char* key : {"device", "precision"}) rest[key] = run.environment.value(key, Json());
  return json_line(rest);
}

}  // namespace

std::string shared_label(const std::vector<std::string>& labels) {
  std::string head = labels[0], tail = labels[0];
  size_t shortest = labels[0].size();
  for (const std::string& label : labels) {
    shortest = std::min(shortest, label.size());
    size_t same = 0;
    while (same < std::min(head.size(), label.size()) && head[same] == label[same]) ++same;
    head.resize(same);
    same = 0;
    while (same < std::min(tail.size(), label.size()) &&
           tail[tail.size() - 1 - same] == label[label.size() - 1 - same])
      ++same;
    tail.erase(0, tail.size() - same);
  }
  // Whole characters only: a byte inside one is 10xxxxxx.
  const auto inside = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  while (!head.empty() && labels[0].size() > head.size() && inside(labels[0][head.size()])) head.pop_back();
  tail.erase(0, tail.size() - std::min(tail.size(), shortest - std::min(shortest, head.size())));
  while (!tail.empty() && inside(tail.front())) tail.erase(0, 1);
  return head + "*" + tail;
}

std::vector<ConfigDifference> config_differences(const std::vector<RunRecord>& runs) {
  std::vector<Json> configs, environments;
  for (const RunRecord& run : runs) {
    configs.push_back(run.config);
    environments.push_back(run.environment.is_object() ? telling_part(run.environment) : Json());
  }
  std::vector<ConfigDifference> differences;
  add_differences(configs, "", differences);
  add_differences(environments, "environment", differences);
  return differences;
}

std::vector<Column> columns_of(const std::vector<RunRecord>& runs, const std::vector<Summary>& summaries,
                               bool group) {
  std::vector<Column> columns;
  std::vector<std::string> kinds;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::optional<std::string> kind = group ? all_but_the_seed(runs[i]) : std::nullopt;
    const auto same_seed = [&](size_t other) { return runs[other].config["seed"] == runs[i].config["seed"]; };
    bool joined = false;
    for (size_t c = 0; kind && !joined && c < columns.size(); ++c) {
      std::vector<size_t>& members = columns[c].members;
      if (kinds[c] != *kind || std::any_of(members.begin(), members.end(), same_seed)) continue;
      members.push_back(i);
      joined = true;
    }
    if (joined) continue;
    columns.push_back({});
    columns.back().members = {i};
    kinds.push_back(kind.value_or(""));
  }
  for (Column& column : columns) {
    std::vector<std::string> labels;
    for (const size_t member : column.members) labels.push_back(summaries[member].label);
    column.label = labels.size() == 1 ? labels[0] : shared_label(labels);
  }
  return columns;
}

}  // namespace keen
