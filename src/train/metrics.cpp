#include "train/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

namespace keen {
namespace {

void append_value(std::string& line, const Json& value) {
  if (value.is_number_float()) {
    const double x = value.get<double>();
    line += std::isfinite(x) ? fmt::format("{:.9g}", x) : "null";
  } else if (value.is_array()) {
    line += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      if (i > 0) line += ',';
      append_value(line, value[i]);
    }
    line += ']';
  } else if (value.is_object()) {
    line += '{';
    bool first = true;
    for (const auto& [key, member] : value.items()) {
      if (!first) line += ',';
      first = false;
      line += json_line(key) + ':';
      append_value(line, member);
    }
    line += '}';
  } else {
    line += json_line(value);
  }
}

// A member that must be there: raises otherwise, which makes the line an unreadable one.
int64_t count_in(const Json& row, const char* key) { return integer_in(row, key, "metrics", Exit::data); }

// NaN for null, and for what is not there.
double number_in(const Json& row, const char* key) {
  const auto at = row.find(key);
  if (at == row.end() || at->is_null()) return std::numeric_limits<double>::quiet_NaN();
  return at->get<double>();
}

std::vector<double> numbers_in(const Json& list) {
  std::vector<double> numbers;
  for (const Json& value : list)
    numbers.push_back(value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>());
  return numbers;
}

TrainRow train_row(const Json& row) {
  return {.step = count_in(row, "step"),
          .tokens = count_in(row, "tokens"),
          .loss = number_in(row, "loss"),
          .grad_norm = number_in(row, "grad_norm"),
          .lr = number_in(row, "lr"),
          .step_ms = number_in(row, "step_ms"),
          .tokens_per_s = number_in(row, "tokens_per_s"),
          .mfu = number_in(row, "mfu"),
          .elapsed_s = number_in(row, "elapsed_s")};
}

ValidationRow validation_row(const Json& row) {
  return {.step = count_in(row, "step"),
          .tokens = count_in(row, "tokens"),
          .loss = number_in(row, "loss"),
          .perplexity = number_in(row, "perplexity")};
}

AttentionRow attention_row(const Json& row) {
  AttentionRow result{.step = count_in(row, "step"), .layers = {}};
  for (const Json& layer : row.at("layers"))
    result.layers.push_back({.layer = count_in(layer, "layer"),
                             .s = numbers_in(layer.at("s")),
                             .b = layer.contains("b") ? numbers_in(layer.at("b")) : std::vector<double>{}});
  return result;
}

// The events after which a run stands at the event's step, perhaps behind rows that are there already: it
// went back to an older checkpoint, and those rows belong to a course that it has left.
bool goes_on_from_its_step(const std::string& event) {
  return event == "start" || event == "resume" || event == "fork";
}

template <class Row> void forget_after(int64_t step, std::map<int64_t, Row>& rows) {
  rows.erase(rows.upper_bound(step), rows.end());
}

template <class Row> std::vector<Row> in_order(std::map<int64_t, Row> rows) {
  std::vector<Row> list;
  for (auto& [step, row] : rows) list.push_back(std::move(row));
  return list;
}

}  // namespace

std::string metrics_line(const Json& row) {
  std::string line;
  append_value(line, row);
  return line;
}

MetricsWriter::MetricsWriter(const std::filesystem::path& path, std::function<void(const std::string&)> warn)
    : file_(path), warn_(std::move(warn)) {
  file_.cut_torn_line();
}

void MetricsWriter::write(const TrainRow& row) {
  append({{"kind", "train"},
          {"step", row.step},
          {"tokens", row.tokens},
          {"loss", row.loss},
          {"grad_norm", row.grad_norm},
          {"lr", row.lr},
          {"step_ms", row.step_ms},
          {"tokens_per_s", row.tokens_per_s},
          {"mfu", row.mfu},
          {"elapsed_s", row.elapsed_s}});
}

void MetricsWriter::write(const ValidationRow& row) {
  append({{"kind", "validation"},
          {"step", row.step},
          {"tokens", row.tokens},
          {"loss", row.loss},
          {"perplexity", row.perplexity}});
}

void MetricsWriter::write(const AttentionRow& row) {
  Json layers = Json::array();
  for (const LayerScale& layer : row.layers) {
    Json entry = {{"layer", layer.layer}, {"s", layer.s}};
    if (!layer.b.empty()) entry["b"] = layer.b;
    layers.push_back(std::move(entry));
  }
  append({{"kind", "attention"}, {"step", row.step}, {"layers", std::move(layers)}});
}

void MetricsWriter::write_event(const std::string& name, const Json& fields) {
  Json row = {{"kind", "event"}, {"event", name}};
  for (const auto& [key, value] : fields.items()) row[key] = value;
  append(row);
}

void MetricsWriter::append(const Json& row) {
  try {
    file_.append(metrics_line(row) + "\n");
  } catch (const Error& error) {
    ++lost_rows_;
    failed(error);
  }
}

void MetricsWriter::sync() {
  try {
    file_.sync();
  } catch (const Error& error) {
    failed(error);
  }
}

void MetricsWriter::failed(const Error& error) {
  if (warned_.exchange(true)) return;
  warn_(fmt::format("metrics are being lost, training goes on: {}", error.what()));
}

Metrics parse_metrics(std::string_view text) {
  Metrics metrics;
  std::map<int64_t, TrainRow> train;
  std::map<int64_t, ValidationRow> validation;
  std::map<int64_t, AttentionRow> attention;
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    text = newline == text.npos ? std::string_view{} : text.substr(newline + 1);
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    try {
      const Json row = parse_json(line, "metrics", Exit::data);
      const std::string kind = row.at("kind").get<std::string>();
      if (kind == "train")
        train[count_in(row, "step")] = train_row(row);
      else if (kind == "validation")
        validation[count_in(row, "step")] = validation_row(row);
      else if (kind == "attention")
        attention[count_in(row, "step")] = attention_row(row);
      else if (kind == "event" && row.at("event").is_string()) {
        const bool goes_on = goes_on_from_its_step(row.at("event").get<std::string>());
        const int64_t step = goes_on || row.contains("step") ? count_in(row, "step") : 0;
        if (goes_on) {
          forget_after(step, train);
          forget_after(step, validation);
          forget_after(step, attention);
        }
        metrics.events.push_back(row);
      }
    } catch (const std::exception&) {
      ++metrics.unreadable_lines;
    }
  }
  metrics.train = in_order(std::move(train));
  metrics.validation = in_order(std::move(validation));
  metrics.attention = in_order(std::move(attention));
  return metrics;
}

bool lacks_validation(const Metrics& metrics, int64_t step) {
  const auto has = [step](const auto& rows) {
    return std::any_of(rows.begin(), rows.end(), [step](const auto& row) { return row.step == step; });
  };
  return has(metrics.train) && !has(metrics.validation);
}

Metrics read_metrics(const std::filesystem::path& path) {
  return parse_metrics(read_file(path, Exit::data, FileKind::regular));
}

}  // namespace keen
