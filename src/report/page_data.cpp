#include "report/page_data.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "report/chart.h"
#include "report/curves.h"

namespace keen {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// Rows of training in a page, and numbers s and b of a run: with these, three runs stay below 1 MB.
constexpr size_t kTrainRows = 60'000, kFewestTrainRows = 1'000;
constexpr size_t kScales = 16'000, kFewestAttentionRows = 32;

std::string base64(std::string_view bytes) {
  constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i)
      group = group << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0u);
    for (size_t i = 0; i < 4; ++i) text += i <= count ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

std::string base64_of_floats(std::span<const double> values) {
  std::string bytes;
  bytes.reserve(4 * values.size());
  for (const double value : values) {
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift & 255);
  }
  return base64(bytes);
}

// From each knot the line is drawn as far as it misses no value between by more than `tolerance`.
std::vector<size_t> knots_of(std::span<const double> values, double tolerance) {
  std::vector<size_t> knots;
  if (values.empty()) return knots;
  knots.push_back(0);
  double lowest = -INFINITY, highest = INFINITY;  // the slopes that are still allowed
  for (size_t i = 1; i < values.size(); ++i) {
    size_t from = knots.back();
    double distance = static_cast<double>(i - from);
    const double slope = (values[i] - values[from]) / distance;
    if (slope < lowest || slope > highest) {
      knots.push_back(from = i - 1);
      distance = 1;
      lowest = -INFINITY, highest = INFINITY;
    }
    lowest = std::max(lowest, (values[i] - tolerance - values[from]) / distance);
    highest = std::min(highest, (values[i] + tolerance - values[from]) / distance);
  }
  if (values.size() > 1) knots.push_back(values.size() - 1);
  return knots;
}

double or_nan(const std::optional<double>& value) { return value.value_or(kNan); }

template <class T> Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json train_json(const std::vector<TrainPoint>& rows, size_t limit) {
  const PagePoints points = page_points(rows, limit);
  // Half a pixel of a wide screen; nothing of what is looked at is as fine.
  const double time = points.seconds.empty() ? 0 : 1e-4 * points.seconds.back();
  double highest_lr = 0;
  for (const double lr : points.lr) highest_lr = std::max(highest_lr, lr);
  Json json = {{"rows", points.step.size()},
               {"rows_per_point", points.rows_per_point},
               {"step", page_column(points.step, 0)},
               {"tokens", page_column(points.tokens, 0)},
               {"seconds", page_column(points.seconds, time)},
               {"loss", {{"f32", base64_of_floats(points.loss)}}},
               {"grad_norm", page_column(points.grad_norm, 0)},
               {"lr", page_column(points.lr, 2e-4 * highest_lr)}};
  if (points.rows_per_point > 1) {
    json["low"] = page_column(points.low, 0);
    json["high"] = page_column(points.high, 0);
  }
  return json;
}

Json validation_json(const std::vector<Point>& rows) {
  std::vector<double> step, tokens, seconds, loss;
  for (const Point& row : rows) {
    step.push_back(static_cast<double>(row.step));
    tokens.push_back(static_cast<double>(row.tokens));
    seconds.push_back(row.seconds);
    loss.push_back(or_nan(row.loss));
  }
  return {{"rows", rows.size()},
          {"step", page_column(step, 0)},
          {"tokens", page_column(tokens, 0)},
          {"seconds", page_column(seconds, 0)},
          {"loss", {{"f32", base64_of_floats(loss)}}}};
}

// Of more rows than there is room for, some at even distances, the first and the last among them.
std::vector<const AttentionRow*> chosen_rows(const std::vector<AttentionRow>& rows) {
  size_t scales = 1;
  for (const LayerScale& layer : rows.back().layers) scales += layer.s.size() + layer.b.size();
  const size_t limit = std::max(kFewestAttentionRows, kScales / scales), count = std::min(limit, rows.size());
  std::vector<const AttentionRow*> chosen;
  for (size_t i = 0; i < count; ++i)
    chosen.push_back(&rows[count == 1 ? 0 : i * (rows.size() - 1) / (count - 1)]);
  return chosen;
}

Json attention_json(const std::vector<AttentionRow>& all_rows) {
  if (all_rows.empty() || all_rows.back().layers.empty()) return nullptr;
  const std::vector<const AttentionRow*> rows = chosen_rows(all_rows);
  std::vector<double> steps;
  for (const AttentionRow* row : rows) steps.push_back(static_cast<double>(row->step));
  Json layers = Json::array();
  for (const LayerScale& last : all_rows.back().layers) {
    const auto series = [&](std::vector<double> LayerScale::*which) -> Json {
      if ((last.*which).empty()) return nullptr;
      std::vector<double> values;
      for (const AttentionRow* row : rows) {
        const auto at = std::find_if(row->layers.begin(), row->layers.end(),
                                     [&](const LayerScale& layer) { return layer.layer == last.layer; });
        for (size_t head = 0; head < last.s.size(); ++head)
          values.push_back(at != row->layers.end() && head < ((*at).*which).size() ? ((*at).*which)[head]
                                                                                   : kNan);
      }
      return page_column(values, 0);
    };
    layers.push_back({{"layer", last.layer},
                      {"heads", last.s.size()},
                      {"s", series(&LayerScale::s)},
                      {"b", series(&LayerScale::b)}});
  }
  return {{"rows", rows.size()}, {"step", page_column(steps, 0)}, {"layers", std::move(layers)}};
}

// The colours of `kColours` that a dark ground needs: the same hues, as bright as there is need.
constexpr std::array<std::string_view, kColours.size()> kDarkColours = {
    "#4fa8e8", "#ff8552", "#2ec49b", "#e39ac8", "#f2b53a", "#8fd0f5", "#d8d8d8"};

std::string_view on_dark(std::string_view colour) {
  const auto at = std::find(kColours.begin(), kColours.end(), colour);
  return at == kColours.end() ? colour : kDarkColours[static_cast<size_t>(at - kColours.begin())];
}

std::string_view name_of(Marker marker) {
  switch (marker) {
    case Marker::circle:
      return "circle";
    case Marker::square:
      return "square";
    case Marker::triangle:
      return "triangle";
    case Marker::down_triangle:
      return "down_triangle";
    default:
      return "diamond";
  }
}

Json look_json(const Look& look) {
  return {{"colour", look.colour},
          {"dark_colour", on_dark(look.colour)},
          {"dash", look.dash},
          {"marker", name_of(look.marker)}};
}

// What was done, in every measure.
Json amounts(double steps, double tokens, double seconds, double flops) {
  return {{"steps", steps}, {"tokens", tokens}, {"seconds", seconds}, {"flops", flops}};
}

Json run_json(const Comparison& comparison, size_t index, const Look& look, size_t limit) {
  const RunRecord& run = comparison.runs[index];
  const Point start = beginning_of(run);
  const auto started = static_cast<double>(start.tokens);
  return {{"look", look_json(look)},
          {"fork_of", or_null(parent_of(comparison.runs, index))},
          {"origin", amounts(static_cast<double>(run.origin.step), static_cast<double>(run.origin.tokens),
                             run.origin.seconds, run.origin.flops)},
          {"start", amounts(static_cast<double>(start.step), started, start.seconds,
                            started * run.flops_per_token.value_or(0))},
          {"train", train_json(run.train, limit)},
          {"validation", validation_json(run.validation)},
          {"attention", attention_json(run.attention)}};
}

Json table_json(const CellTable& table) {
  Json rows = Json::array();
  for (const CellRow& row : table.rows) {
    Json cells = Json::array();
    for (const Cell& cell : row.cells)
      cells.push_back({{"text", cell.text}, {"missing", cell.kind == Cell::Kind::missing}});
    rows.push_back({{"key", row.key}, {"label", row.label}, {"cells", std::move(cells)}});
  }
  return {{"header", table.header}, {"rows", std::move(rows)}};
}

}  // namespace

Json page_column(std::span<const double> values, double tolerance) {
  if (std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); })) {
    const std::vector<size_t> knots = knots_of(values, tolerance);
    // A knot takes about 20 characters, a float five.
    if (4 * knots.size() <= values.size() + 16) {
      Json list = Json::array();
      for (const size_t at : knots) {
        list.push_back(at);
        // Whole numbers are shorter as such.
        if (std::abs(values[at]) < 1e15 && values[at] == std::trunc(values[at]))
          list.push_back(static_cast<int64_t>(values[at]));
        else
          list.push_back(values[at]);
      }
      return {{"knots", std::move(list)}};
    }
  }
  return {{"f32", base64_of_floats(values)}};
}

PagePoints page_points(const std::vector<TrainPoint>& rows, size_t limit) {
  PagePoints points;
  const size_t most = std::max<size_t>(1, rows.size() <= limit ? rows.size() : limit / 2);
  const size_t each = std::max<size_t>(1, (rows.size() + most - 1) / most);
  points.rows_per_point = static_cast<int64_t>(each);
  for (size_t begin = 0; begin < rows.size(); begin += each) {
    const size_t end = std::min(begin + each, rows.size());
    double step = 0, tokens = 0, seconds = 0, sum = 0, low = kNan, high = kNan, grad_norm = kNan;
    int64_t finite = 0;
    for (size_t i = begin; i < end; ++i) {
      const TrainPoint& row = rows[i];
      step += static_cast<double>(row.step);
      tokens += static_cast<double>(row.tokens);
      seconds += row.seconds;
      grad_norm = std::fmax(grad_norm, or_nan(row.grad_norm));
      if (!row.loss) continue;
      sum += *row.loss;
      low = std::fmin(low, *row.loss), high = std::fmax(high, *row.loss);
      ++finite;
    }
    const auto count = static_cast<double>(end - begin);
    points.step.push_back(step / count);
    points.tokens.push_back(tokens / count);
    points.seconds.push_back(seconds / count);
    points.loss.push_back(finite > 0 ? sum / static_cast<double>(finite) : kNan);
    points.grad_norm.push_back(grad_norm);
    points.lr.push_back(or_nan(rows[end - 1].lr));
    if (each == 1) continue;
    points.low.push_back(low);
    points.high.push_back(high);
  }
  return points;
}

Json page_data(const Comparison& comparison, const std::vector<SvgFile>& figures) {
  const size_t limit = std::max(kFewestTrainRows, kTrainRows / comparison.runs.size());
  const std::vector<Look> looks = looks_of(comparison);
  Json runs = Json::array(), columns = Json::array(), pictures = Json::array();
  for (size_t i = 0; i < comparison.runs.size(); ++i)
    runs.push_back(run_json(comparison, i, looks[i], limit));
  for (const Column& column : comparison.columns)
    columns.push_back({{"label", column.label}, {"members", column.members}});
  for (const SvgFile& figure : figures)
    pictures.push_back({{"title", figure.title}, {"svg", base64(figure.bytes)}});
  return {{"comparison", comparison_json(comparison)},
          {"config", table_json(config_table(comparison))},
          {"results", table_json(comparison_table(comparison))},
          {"notes", comparison_notes(comparison)},
          {"baseline", comparison.baseline},
          {"columns", std::move(columns)},
          {"figures", std::move(pictures)},
          {"smoothing", kSmoothing},
          {"runs", std::move(runs)}};
}

}  // namespace keen
