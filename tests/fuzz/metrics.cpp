// A metrics.jsonl: every line is a row or counted as unreadable, and rows are written and read back to nine
// digits.
#include "train/metrics.h"

#include <cmath>

#include "target.h"

using namespace keen;

namespace {

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || a == b || std::abs(a - b) <= 1e-8 * std::abs(a);
}

bool same(const TrainRow& a, const TrainRow& b) {
  return a.step == b.step && a.tokens == b.tokens && same(a.loss, b.loss) && same(a.grad_norm, b.grad_norm) &&
         same(a.lr, b.lr) && same(a.step_ms, b.step_ms) && same(a.tokens_per_s, b.tokens_per_s) &&
         same(a.mfu, b.mfu) && same(a.elapsed_s, b.elapsed_s);
}

bool same(const ValidationRow& a, const ValidationRow& b) {
  return a.step == b.step && a.tokens == b.tokens && same(a.loss, b.loss) && same(a.perplexity, b.perplexity);
}

bool same(const AttentionRow& a, const AttentionRow& b) {
  const auto numbers = [](double x, double y) { return same(x, y); };
  const auto layers = [&](const LayerScale& x, const LayerScale& y) {
    return x.layer == y.layer && std::equal(x.s.begin(), x.s.end(), y.s.begin(), y.s.end(), numbers) &&
           std::equal(x.b.begin(), x.b.end(), y.b.begin(), y.b.end(), numbers);
  };
  return a.step == b.step &&
         std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(), layers);
}

template <class Row> void compare(const std::vector<Row>& a, const std::vector<Row>& b) {
  const auto equal = [](const Row& x, const Row& y) { return same(x, y); };
  fuzz::require(std::equal(a.begin(), a.end(), b.begin(), b.end(), equal), "read(write(rows)) == rows");
  for (size_t i = 0; i < a.size(); ++i)
    fuzz::require(a[i].step >= 0 && (i == 0 || a[i - 1].step < a[i].step), "rows are sorted by their step");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fuzz::Directory directory;
  const std::string_view text = fuzz::text_of(data, size);
  const Metrics metrics = parse_metrics(text);
  const auto lines = 1 + std::count(text.begin(), text.end(), '\n');
  const auto rows = std::ssize(metrics.train) + std::ssize(metrics.validation) +
                    std::ssize(metrics.attention) + std::ssize(metrics.events);
  fuzz::require(rows + metrics.unreadable_lines <= lines, "a line is at most one row");

  const std::filesystem::path path = directory.put("metrics.jsonl", "a torn line");
  {
    MetricsWriter writer(path, [](const std::string& sentence) { fuzz::require(false, sentence); });
    // Before the rows: an event may say that the rows before it are left.
    for (const Json& event : metrics.events) writer.write_event(event.at("event").get<std::string>(), event);
    for (const TrainRow& row : metrics.train) writer.write(row);
    for (const ValidationRow& row : metrics.validation) writer.write(row);
    for (const AttentionRow& row : metrics.attention) writer.write(row);
  }
  const Metrics again = read_metrics(path);
  fuzz::require(again.unreadable_lines == 0, "what keen writes can be read");
  fuzz::require(again.events.size() == metrics.events.size(), "read(write(events)) are as many");
  compare(metrics.train, again.train);
  compare(metrics.validation, again.validation);
  compare(metrics.attention, again.attention);
  return 0;
}
