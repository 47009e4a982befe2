#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/console.h"
#include "report/compare.h"

namespace keen {

namespace {

// Why the batches of two runs are not the same ones, or nothing.
std::string other_batches(const RunRecord& a, const RunRecord& b) {
  if (!a.config.is_object() || !b.config.is_object()) return "no config";
  if (!a.train_fingerprint || !b.train_fingerprint) return "data unknown";
  if (*a.train_fingerprint != *b.train_fingerprint) return "other data";
  const auto of = [](const RunRecord& run, const char* object, const char* key) {
    const auto part = run.config.find(object);
    return part != run.config.end() && part->is_object() ? part->value(key, Json()) : Json();
  };
  if (of(a, "model", "context") != of(b, "model", "context")) return "other context";
  if (of(a, "batch", "sequences") != of(b, "batch", "sequences")) return "other batches";
  if (a.config.value("seed", Json()) != b.config.value("seed", Json())) return "other seed";
  if (a.origin.step != b.origin.step) return "other start";
  return "";
}

// Dotted keys of the config that change training, as far as the run uses them, and what it has there.
std::map<std::string, std::string> recipe_of(const RunRecord& run) {
  std::map<std::string, std::string> recipe;
  const auto value = [&](const char* object, const char* key) {
    const auto part = run.config.find(object);
    return part != run.config.end() && part->is_object() ? part->value(key, Json()) : Json();
  };
  const bool constant = value("schedule", "kind") == "constant", wsd = value("schedule", "kind") == "wsd",
             rope = value("model", "position") == "rope";
  const std::set<std::string> unused = {"model.attention",
                                        "schedule.stop_after",
                                        "batch.micro_sequences",
                                        "init.from",
                                        constant ? "schedule.steps" : "",
                                        constant ? "schedule.final_lr_fraction" : "",
                                        wsd ? "" : "schedule.decay_fraction",
                                        rope ? "" : "model.rope_theta",
                                        rope ? "" : "model.rope_fraction"};
  for (const char* name : {"model", "batch", "optimizer", "schedule", "init"}) {
    const auto part = run.config.find(name);
    if (part == run.config.end() || !part->is_object()) continue;
    for (const auto& [key, leaf] : part->items())
      if (const std::string dotted = std::string(name) + "." + key; !unused.contains(dotted))
        recipe[dotted] = json_line(leaf);
  }
  // The machine decides what "auto" is.
  if (run.environment.is_object() && run.environment.contains("precision"))
    recipe["precision"] = json_line(run.environment["precision"]);
  return recipe;
}

// Forks may name one parent by several paths.
bool same_parent(const RunRecord& a, const RunRecord& b) {
  if (a.parent == b.parent) return true;
  std::error_code ignored;
  return a.parent && b.parent && a.parent_step == b.parent_step && !a.parent_directory.empty() &&
         !b.parent_directory.empty() &&
         std::filesystem::equivalent(a.parent_directory, b.parent_directory, ignored);
}

// What only one of them uses goes with a key that differs: schedule.steps with schedule.kind.
std::vector<std::string> other_recipe(const RunRecord& a, const RunRecord& b) {
  const auto mine = recipe_of(a), theirs = recipe_of(b);
  std::set<std::string> keys;
  for (const auto& recipe : {mine, theirs})
    for (const auto& [key, value] : recipe) keys.insert(key);
  std::erase_if(keys, [&](const std::string& key) {
    const auto x = mine.find(key), y = theirs.find(key);
    return x == mine.end() || y == theirs.end() || x->second == y->second;
  });
  std::vector<std::string> list(keys.begin(), keys.end());
  if (!same_parent(a, b)) list.push_back("init.from");
  return list;
}

struct Pair {
  int64_t step;
  double difference;
};

// Rows that read the same place in the data; both curves rise in it.
std::vector<Pair> pairs_of(const std::vector<TrainPoint>& curve, const std::vector<TrainPoint>& partner) {
  std::vector<Pair> pairs;
  auto other = partner.begin();
  for (const TrainPoint& point : curve) {
    while (other != partner.end() && other->batch < point.batch) ++other;
    if (other == partner.end()) break;
    if (other->batch == point.batch && point.loss && other->loss)
      pairs.push_back({point.step, *point.loss - *other->loss});
  }
  return pairs;
}

Json attention_of(const RunRecord& run) {
  const auto model = run.config.find("model");
  return model != run.config.end() && model->is_object() ? model->value("attention", Json()) : Json();
}

// Never larger than what it is of, where a sum of diverged losses would overflow.
class Mean {
 public:
  void take(double value) { mean_ += (value - mean_) / static_cast<double>(++count_); }
  double operator*() const { return mean_; }

 private:
  double mean_ = 0;
  int64_t count_ = 0;
};

}  // namespace

Paired paired_difference(const RunRecord& run, const RunRecord& partner) {
  Paired result;
  result.why = other_batches(run, partner);
  if (!result.why.empty()) return result;
  const std::vector<Pair> pairs = pairs_of(run.train, partner.train);
  const auto all = std::ssize(pairs);
  if (all == 0) {
    result.why = run.train.empty() || partner.train.empty() ? "none yet" : "no same batch";
    return result;
  }
  int64_t count = std::min<int64_t>(all, std::max<int64_t>(all / 4, kFewestPairs));
  const auto length = static_cast<int64_t>(std::sqrt(static_cast<double>(count)));
  const int64_t blocks = count / length;
  count = blocks * length;

  const auto first = pairs.end() - static_cast<std::ptrdiff_t>(count);
  std::vector<double> means;
  for (auto block = first; block != pairs.end(); block += static_cast<std::ptrdiff_t>(length)) {
    Mean mean;
    for (int64_t i = 0; i < length; ++i) mean.take(block[static_cast<std::ptrdiff_t>(i)].difference);
    means.push_back(*mean);
  }
  Mean mean_of_blocks;
  for (const double mean : means) mean_of_blocks.take(mean);
  result.mean = *mean_of_blocks;
  result.differs_also = other_recipe(run, partner);
  result.attention_differs = attention_of(run) != attention_of(partner);
  result.pairs = count;
  result.blocks = blocks;
  result.first_step = first->step;
  result.last_step = pairs.back().step;
  if (blocks < 4) return result;
  double squares = 0;
  for (const double mean : means) squares += (mean - *result.mean) * (mean - *result.mean);
  const double error = std::sqrt(squares / static_cast<double>(blocks - 1) / static_cast<double>(blocks));
  if (std::isfinite(error)) result.standard_error = error;  // diverged losses overflow when squared
  return result;
}

}  // namespace keen
