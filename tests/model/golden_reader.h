// Reads the golden fixtures: values of whole models that an independent float64 implementation computed.
// scripts/make_golden.py writes them and says how; this header only turns the files into numbers.
//
//   const Golden golden = read_golden(KEEN_FIXTURES "/golden_llama_ssmax.json");
//   golden.params.at("blocks.0.attn.s").values      // exactly representable in float32
//
// Errors: anything missing, of the wrong type or of the wrong size throws (Error with Exit::internal, or what
// nlohmann/json throws), so that a damaged fixture fails the test that reads it instead of testing less.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"

namespace keen::testing {

static_assert(std::endian::native == std::endian::little, "the fixtures hold little-endian numbers");

struct GoldenTensor {
  std::vector<int64_t> shape;
  std::vector<double> values;  // row-major
};
using GoldenTensors = std::map<std::string, GoldenTensor>;  // by the names of model.safetensors

// One evaluation of a trained model.
struct Golden {
  nlohmann::json model;  // the "model" object of the config
  GoldenTensors params;
  GoldenTensors gradients;            // of every learned parameter: fixed s has none
  int64_t B = 0, T = 0;               // T may be smaller than the context
  std::vector<int32_t> ids, targets;  // (B, T)
  GoldenTensor logits;                // (B, T, V)
  double loss = 0;                    // mean cross-entropy over B x T, nats
  nlohmann::json wrong;               // mistake -> {loss, max_logit_difference}: what it would give instead
};

// Consecutive updates by AdamW, with the gradients clipped by their global norm.
struct GoldenAdamw {
  nlohmann::json model;
  nlohmann::json optimizer;    // the "optimizer" object of the config; lr is constant
  GoldenTensors params;        // before the first update
  GoldenTensors final_params;  // after the last
  int64_t B = 0, T = 0;
  std::vector<std::vector<int32_t>> ids, targets;  // one (B, T) for each update
  std::vector<double> losses, grad_norms;          // of each update: before it, before clipping
  nlohmann::json wrong;                            // mistake -> {loss, max_parameter_difference}
};

// The bytes of standard base64 with padding (RFC 4648).
inline std::vector<uint8_t> decode_base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  check(text.size() % 4 == 0, "golden: base64 comes in groups of four");
  std::array<int8_t, 256> value;
  value.fill(-1);
  for (size_t i = 0; i < kDigits.size(); ++i)
    value[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  size_t length = text.size();
  while (length > 0 && length + 2 > text.size() && text[length - 1] == '=') --length;
  std::vector<uint8_t> bytes;
  bytes.reserve(length / 4 * 3 + 2);
  uint32_t bits = 0, held = 0;
  for (const char c : text.substr(0, length)) {
    const int8_t digit = value[static_cast<uint8_t>(c)];
    check(digit >= 0, "golden: base64 holds its 64 digits alone");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if ((held += 6) < 8) continue;
    held -= 8;
    bytes.push_back(static_cast<uint8_t>(bits >> held));
  }
  return bytes;
}

template <class Number> std::vector<double> numbers_of(const std::vector<uint8_t>& bytes) {
  check(bytes.size() % sizeof(Number) == 0, "golden: a tensor holds whole numbers");
  std::vector<Number> numbers(bytes.size() / sizeof(Number));
  std::memcpy(numbers.data(), bytes.data(), bytes.size());
  return std::vector<double>(numbers.begin(), numbers.end());
}

inline GoldenTensor golden_tensor(const nlohmann::json& entry) {
  GoldenTensor tensor;
  tensor.shape = entry.at("shape").get<std::vector<int64_t>>();
  const std::string dtype = entry.at("dtype").get<std::string>();
  const std::vector<uint8_t> bytes = decode_base64(entry.at("data").get_ref<const std::string&>());
  check(dtype == "F32" || dtype == "F64", "golden: dtype is F32 or F64");
  tensor.values = dtype == "F32" ? numbers_of<float>(bytes) : numbers_of<double>(bytes);
  size_t count = 1;
  for (const int64_t size : tensor.shape) count *= static_cast<size_t>(size);
  check(count == tensor.values.size(), "golden: a tensor has as many numbers as its shape says");
  return tensor;
}

inline GoldenTensors golden_tensors(const nlohmann::json& entries) {
  GoldenTensors tensors;
  for (const auto& [name, entry] : entries.items()) tensors.emplace(name, golden_tensor(entry));
  check(!tensors.empty(), "golden: there are tensors");
  return tensors;
}

// Rows of equal length, one behind the other.
inline std::vector<int32_t> golden_ids(const nlohmann::json& rows, int64_t B, int64_t T) {
  std::vector<int32_t> ids;
  for (const auto& row : rows) {
    check(std::ssize(row) == T, "golden: a sequence has T tokens");
    for (const auto& id : row) ids.push_back(id.get<int32_t>());
  }
  check(std::ssize(ids) == B * T, "golden: there are B sequences");
  return ids;
}

inline nlohmann::json golden_file(const std::string& path) {
  std::ifstream in(path);
  if (!in) fail(Exit::internal, "golden: cannot open {}", path);
  return nlohmann::json::parse(in);
}

// Reads tests/fixtures/golden_*.json, except golden_adamw.json.
inline Golden read_golden(const std::string& path) {
  const nlohmann::json file = golden_file(path);
  Golden golden;
  golden.model = file.at("model");
  golden.params = golden_tensors(file.at("params"));
  golden.gradients = golden_tensors(file.at("gradients"));
  golden.B = file.at("B").get<int64_t>();
  golden.T = file.at("T").get<int64_t>();
  golden.ids = golden_ids(file.at("ids"), golden.B, golden.T);
  golden.targets = golden_ids(file.at("targets"), golden.B, golden.T);
  golden.logits = golden_tensor(file.at("logits"));
  golden.loss = file.at("loss").get<double>();
  golden.wrong = file.at("wrong");
  return golden;
}

// Reads tests/fixtures/golden_adamw.json.
inline GoldenAdamw read_golden_adamw(const std::string& path) {
  const nlohmann::json file = golden_file(path);
  GoldenAdamw golden;
  golden.model = file.at("model");
  golden.optimizer = file.at("optimizer");
  golden.params = golden_tensors(file.at("params"));
  golden.final_params = golden_tensors(file.at("final_params"));
  golden.B = file.at("B").get<int64_t>();
  golden.T = file.at("T").get<int64_t>();
  for (const auto& step : file.at("ids")) golden.ids.push_back(golden_ids(step, golden.B, golden.T));
  for (const auto& step : file.at("targets")) golden.targets.push_back(golden_ids(step, golden.B, golden.T));
  golden.losses = file.at("losses").get<std::vector<double>>();
  golden.grad_norms = file.at("grad_norms").get<std::vector<double>>();
  golden.wrong = file.at("wrong");
  check(golden.ids.size() == golden.losses.size() && golden.targets.size() == golden.losses.size() &&
            golden.grad_norms.size() == golden.losses.size(),
        "golden: every update has its batch, loss and gradient norm");
  return golden;
}

}  // namespace keen::testing
