#include <algorithm>
#include <cmath>

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

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

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
    double sum = 0;
    for (int64_t i = 0; i < length; ++i) sum += block[static_cast<std::ptrdiff_t>(i)].difference;
    means.push_back(sum / static_cast<double>(length));
  }
  result.mean = mean_of(means);
  result.pairs = count;
  result.blocks = blocks;
  result.first_step = first->step;
  result.last_step = pairs.back().step;
  if (blocks < 4) return result;
  double squares = 0;
  for (const double mean : means) squares += (mean - *result.mean) * (mean - *result.mean);
  result.standard_error = std::sqrt(squares / static_cast<double>(blocks - 1) / static_cast<double>(blocks));
  return result;
}

}  // namespace keen
