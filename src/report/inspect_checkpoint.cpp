// keen inspect CHECKPOINT or FILE.safetensors: tensors in numbers, and the row scales of each head.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "core/parallel.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "model/gpt.h"
#include "report/inspect_kinds.h"
#include "train/checkpoint.h"
#include "train/summary.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

// Of the finite elements of a tensor, or of several.
struct Numbers {
  int64_t count = 0, not_finite = 0;
  double square_sum = 0;
  double least = std::numeric_limits<double>::infinity(), most = -least;

  double norm() const { return std::sqrt(square_sum); }
  double rms() const { return finite() > 0 ? std::sqrt(square_sum / static_cast<double>(finite())) : 0; }
  int64_t finite() const { return count - not_finite; }
  void add(const Numbers& other) {
    count += other.count;
    not_finite += other.not_finite;
    square_sum += other.square_sum;
    least = std::min(least, other.least);
    most = std::max(most, other.most);
  }
};

template <class T> Numbers numbers_of(std::span<const std::byte> data) {
  Numbers numbers;
  for (size_t at = 0; at < data.size(); at += sizeof(T)) {
    T stored;
    std::memcpy(&stored, data.data() + at, sizeof(T));
    const auto x = static_cast<double>(stored);
    ++numbers.count;
    if (!std::isfinite(x)) {
      ++numbers.not_finite;
      continue;
    }
    numbers.square_sum += x * x;
    numbers.least = std::min(numbers.least, x);
    numbers.most = std::max(numbers.most, x);
  }
  return numbers;
}

struct NamedNumbers {
  std::string name;
  const StoredTensor* tensor;
  Numbers numbers;
};

// In the order of layers, not of their digits: blocks.2 before blocks.10, embeddings first, the head last.
std::vector<NamedNumbers> measure(const StoredTensors& tensors) {
  std::vector<NamedNumbers> list;
  for (const auto& [name, tensor] : tensors) list.push_back({name, &tensor, {}});
  const auto place = [](const std::string& name) {
    const int part = name.starts_with("embed.") ? 0 : name.starts_with("blocks.") ? 1 : 2;
    return std::pair(part, part == 1 ? std::atoll(name.c_str() + 7) : 0);
  };
  std::stable_sort(list.begin(), list.end(),
                   [&](const auto& a, const auto& b) { return place(a.name) < place(b.name); });
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t i = 0; i < list.size(); ++i) {
    const StoredTensor& tensor = *list[i].tensor;
    list[i].numbers = tensor.dtype == DType::f64    ? numbers_of<double>(tensor.data)
                      : tensor.dtype == DType::bf16 ? numbers_of<bf16>(tensor.data)
                                                    : numbers_of<float>(tensor.data);
  }
  return list;
}

std::string short_number(double x) { return fmt::format("{:.3g}", x); }

// A row for each tensor, or for all of a kind and shape: name, shape, how many, and their numbers.
std::string tensor_table(const std::vector<NamedNumbers>& list, const InspectOptions& options) {
  struct Row {
    std::string name, shape;
    int64_t tensors = 0;
    Numbers numbers;
  };
  std::vector<Row> rows;
  for (const NamedNumbers& each : list) {
    const std::string name = options.all ? each.name : folded_name(each.name);
    const std::string shape = to_string(each.tensor->shape);
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const Row& r) { return r.name == name && r.shape == shape; });
    if (row == rows.end()) row = rows.insert(rows.end(), {name, shape, 0, {}});
    ++row->tensors;
    row->numbers.add(each.numbers);
  }
  const bool bad =
      std::any_of(rows.begin(), rows.end(), [](const Row& row) { return row.numbers.not_finite > 0; });
  std::vector<std::string> header = {"tensor", "shape", options.all ? "norm" : "count", "rms", "min", "max"};
  if (bad) header.back() = "not finite";
  Table table(header);
  table.left_aligned(1);
  for (const Row& row : rows) {
    const Numbers& n = row.numbers;
    // Where something is not finite, that is what matters.
    const std::string last =
        bad ? (n.not_finite == 0 ? std::string("-") : with_commas(n.not_finite)) : short_number(n.most);
    table.add({row.name, row.shape, options.all ? short_number(n.norm()) : std::to_string(row.tensors),
               short_number(n.rms()), n.finite() > 0 ? short_number(n.least) : "-", last});
  }
  return table.str(0, options.colour);
}

Json tensors_json(const std::vector<NamedNumbers>& list) {
  Json all = Json::array();
  for (const auto& [name, tensor, numbers] : list) {
    Json shape = Json::array();
    for (int axis = 0; axis < tensor->shape.rank; ++axis) shape.push_back(tensor->shape[axis]);
    const bool any = numbers.finite() > 0;
    all.push_back({{"name", name},
                   {"shape", shape},
                   {"dtype", name_of(tensor->dtype)},
                   {"norm", numbers.norm()},
                   {"rms", numbers.rms()},
                   {"min", any ? Json(numbers.least) : Json(nullptr)},
                   {"max", any ? Json(numbers.most) : Json(nullptr)},
                   {"not_finite", numbers.not_finite}});
  }
  return all;
}

std::vector<double> values_of(const StoredTensor& tensor) {
  std::vector<double> values(static_cast<size_t>(tensor.shape.count()));
  with_float_type(tensor.dtype, [&]<class T>() {
    for (size_t i = 0; i < values.size(); ++i) {
      T x;
      std::memcpy(&x, tensor.data.data() + i * sizeof(T), sizeof(T));
      values[i] = static_cast<double>(x);
    }
  });
  return values;
}

// s or b of every layer that has it. Small models show each head; of large ones a layer shows its least, mean
// and largest value.
std::string row_scale_table(const std::vector<NamedNumbers>& list, const std::string& which, Json& json,
                            const InspectOptions& options) {
  constexpr size_t kHeadsInLine = 8, kMostLayers = 24;
  std::map<int64_t, std::vector<double>> layers;
  size_t heads = 0;
  for (const NamedNumbers& each : list) {
    if (!each.name.starts_with("blocks.") || !each.name.ends_with(".attn." + which)) continue;
    if (each.numbers.count == 0) continue;
    const auto& values = layers[std::atoll(each.name.c_str() + 7)] = values_of(*each.tensor);
    heads = std::max(heads, values.size());
  }
  if (layers.empty()) return "";
  Json by_layer = Json::object();
  for (const auto& [layer, values] : layers) {
    Json row = Json::array();
    for (const double value : values) row.push_back(number_or_null(value));
    by_layer[std::to_string(layer)] = std::move(row);
  }
  json[which] = std::move(by_layer);

  const bool each_head = options.all || (heads <= kHeadsInLine && layers.size() <= kMostLayers);
  std::vector<std::string> header = {"layer"};
  if (each_head)
    for (size_t head = 0; head < std::min(heads, kHeadsInLine); ++head)
      header.push_back(fmt::format("{}{}", head == 0 ? "head " : "", head));
  else
    header.insert(header.end(), {"min", "mean", "max", "heads"});
  Table table(header);
  const auto number = [](double x) { return fmt::format("{:.3f}", x); };
  for (const auto& [layer, values] : layers) {
    std::vector<std::string> row = {std::to_string(layer)};
    if (!each_head) {
      double sum = 0;
      for (const double value : values) sum += value;
      row.push_back(number(*std::min_element(values.begin(), values.end())));
      row.push_back(number(sum / static_cast<double>(values.size())));
      row.push_back(number(*std::max_element(values.begin(), values.end())));
      row.push_back(std::to_string(values.size()));
      table.add(row);
      continue;
    }
    for (size_t head = 0; head < values.size(); ++head) {
      if (head > 0 && head % kHeadsInLine == 0) {
        table.add(row);
        row = {fmt::format("  +{}", head)};
      }
      row.push_back(number(values[head]));
    }
    table.add(row);
  }
  return heading(fmt::format("{} of each {}", which, each_head ? "head" : "layer's heads"), options) +
         table.str(0, options.colour);
}

// Everything about a file of tensors. Numbers that are not finite are a problem: keen never writes one.
void add_tensors(Inspection& result, const SafetensorsFile& file, const InspectOptions& options) {
  const std::vector<NamedNumbers> list = measure(file.tensors());
  Numbers all;
  for (const NamedNumbers& each : list) all.add(each.numbers);
  result.json["elements"] = all.count;
  result.json["not_finite"] = all.not_finite;
  result.json["tensors"] = tensors_json(list);
  result.text += tensor_table(list, options);
  for (const char* which : {"s", "b"}) result.text += row_scale_table(list, which, result.json, options);
  if (all.not_finite == 0) return;
  const auto first =
      std::find_if(list.begin(), list.end(), [](const auto& each) { return each.numbers.not_finite > 0; });
  result.problem =
      Error(Exit::checkpoint, fmt::format("{}: {} of {} numbers are not finite, the first of them "
                                          "in {}",
                                          file.path().string(), with_commas(all.not_finite),
                                          with_commas(all.count), first->name));
}

// AdamW's averages in one line.
void add_optimizer_fact(Facts& facts, Json& json, const Checkpoint& checkpoint) {
  const SafetensorsFile file(checkpoint.file("optimizer.safetensors"));
  std::array<Numbers, 2> averages;  // m, v
  for (const NamedNumbers& each : measure(file.tensors()))
    averages[each.name.starts_with("v.") ? 1 : 0].add(each.numbers);
  const auto& [m, v] = averages;
  const int64_t bad = m.not_finite + v.not_finite;
  facts.add("optimizer", fmt::format("m and v of {} parameters, rms {} and {}{}", with_commas(m.count),
                                     short_number(m.rms()), short_number(v.rms()),
                                     bad == 0 ? "" : fmt::format("; {} not finite", with_commas(bad))));
  json["optimizer"] = {{"elements", m.count}, {"m_rms", m.rms()}, {"v_rms", v.rms()}, {"not_finite", bad}};
}

}  // namespace

Inspection inspect_checkpoint(const fs::path& path, const InspectOptions& options) {
  const Checkpoint checkpoint = verify_checkpoint(path);
  Inspection result = begin_inspection("checkpoint", path);
  Json& json = result.json;
  const RunConfig config = checkpoint_config(checkpoint);
  const std::string state_file = checkpoint.file("state.json").string();
  const std::string state_text = read_file(state_file, Exit::checkpoint, FileKind::own);
  const TrainState state = parse_state(state_text, state_file, Gpt(config.model, DType::f32).params);
  int64_t bytes = 0;
  for (const CheckpointFile& file : checkpoint.files) bytes += file.size_bytes;
  Facts facts;
  facts.add("step", with_commas(checkpoint.step));
  facts.add("tokens", with_commas(state.tokens));
  add_model_facts(facts, json, config.model);
  facts.add("size", fmt::format("{} in {} files, every hash is right", short_bytes(bytes),
                                checkpoint.files.size() + 1));
  facts.add("written by", fmt::format("{} rank{}", checkpoint.ranks, checkpoint.ranks == 1 ? "" : "s"));
  if (state.parent) facts.add("fork of", state.parent->path);
  if (state.skipped_steps != 0)
    facts.add("left out", fmt::format("{} batches that were not finite", with_commas(state.skipped_steps)));
  json["step"] = checkpoint.step;
  json["bytes"] = bytes;
  json["hash"] = checkpoint.hash;
  json["state"] = parse_json(state_text, state_file, Exit::checkpoint);
  add_optimizer_fact(facts, json, checkpoint);
  result.text = title(path, "a whole checkpoint", options) + facts.str() + "\n";
  add_tensors(result, SafetensorsFile(checkpoint.file("model.safetensors")), options);
  return result;
}

Inspection inspect_tensors(const fs::path& path, const InspectOptions& options) {
  const SafetensorsFile file(path);
  Inspection result = begin_inspection("tensors", path);
  int64_t elements = 0;
  for (const auto& [name, tensor] : file.tensors()) elements += tensor.shape.count();
  result.text = title(
      path, fmt::format("{} tensors, {} elements", file.tensors().size(), with_commas(elements)), options);
  add_tensors(result, file, options);
  return result;
}

}  // namespace keen
