// A directory with a little data and the config of a model that trains in a moment.
#pragma once

#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "program.h"

namespace keen::testing {

using Json = nlohmann::json;

inline Json tiny_config() {
  return Json::parse(R"({
    "seed": 7, "device": "cpu", "precision": "fp32",
    "model": {"vocab_size": 300, "context": 16, "layers": 2, "width": 16, "heads": 2, "mlp_width": 32},
    "data": {"train": "train.bin", "validation": "val.bin"},
    "batch": {"sequences": 4, "micro_sequences": 2}, "optimizer": {"lr": 0.003},
    "schedule": {"steps": 12, "warmup_steps": 2},
    "evaluate": {"every": 4, "batches": 2}, "checkpoint": {"every": 4}, "log": {"every": 5}
  })");
}

class TinyRun : public Shell {
 public:
  explicit TinyRun(Medium medium = Medium::disk) : Shell(medium) {
    put(*this / "train.bin", shard_bytes(5000, 299));
    put(*this / "val.bin", shard_bytes(400, 37));
    configure();
  }

  // Writes c.json: the tiny config with `changes` merged in. Its run directory is runs/c.
  void configure(const Json& changes = Json::object(), const std::string& file = "c.json") const {
    Json config = tiny_config();
    config.merge_patch(changes);
    put(*this / file, config.dump(1));
  }

  Outcome train(const std::vector<std::string>& more = {},
                const std::vector<std::string>& environment = {}) const {
    return keen(train_command(more), environment);
  }
  static std::vector<std::string> train_command(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"train", "c.json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  // The rows of a run's metrics that are of this kind, and of this event where one is named. A torn last
  // line, which a run that is still writing may show, is left out.
  std::vector<Json> rows(const std::string& kind, const std::string& event = "",
                         const std::string& run = "runs/c") const {
    std::vector<Json> found;
    if (!exists(run + "/metrics.jsonl")) return found;
    std::istringstream lines(content_of(*this / (run + "/metrics.jsonl")));
    for (std::string line; std::getline(lines, line) && !lines.eof();) {
      const Json row = Json::parse(line);
      if (row.at("kind") == kind && (event.empty() || row.at("event") == event)) found.push_back(row);
    }
    return found;
  }

  std::filesystem::path checkpoint(int step, const std::string& run = "runs/c") const {
    std::string name = std::to_string(step);
    name.insert(0, 8 - name.size(), '0');
    return *this / (run + "/checkpoints/step_" + name);
  }
  bool exists(const std::string& name) const { return std::filesystem::exists(*this / name); }

  // Names in a directory, sorted.
  std::vector<std::string> names(const std::string& directory) const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(*this / directory))
      found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  }

  // Waits until something is so; false after a minute.
  static bool until(const std::function<bool()>& so) {
    for (int i = 0; i < 30'000; ++i) {
      if (so()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }
};

// The loss and gradient norm that the log has last for each step.
inline std::map<int, std::string> losses(const TinyRun& shell, const std::string& run) {
  std::map<int, std::string> found;
  for (const Json& row : shell.rows("train", "", run))
    found[row["step"].get<int>()] = row["loss"].dump() + " " + row["grad_norm"].dump();
  return found;
}

// Two runs ended in the same state, to the last bit, and logged the same losses.
inline void expect_same_run(const TinyRun& shell, const std::string& a, const std::string& b, int step) {
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_EQ(content_of(shell.checkpoint(step, a) / file), content_of(shell.checkpoint(step, b) / file))
        << file;
  EXPECT_EQ(losses(shell, a), losses(shell, b));
  EXPECT_EQ(static_cast<int>(losses(shell, a).size()), step);
}

inline void flip_byte(const std::filesystem::path& path, size_t at) {
  std::string bytes = content_of(path);
  ASSERT_LT(at, bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
  put(path, bytes);
}

// What is in a file of tensors, read by the published format: 8 bytes of length, a JSON header, data.
struct TensorFile {
  Json header;
  std::map<std::string, std::vector<int64_t>> shapes;
  std::map<std::string, std::vector<float>> values;

  explicit TensorFile(const std::filesystem::path& path) {
    const std::string bytes = content_of(path);
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    header = Json::parse(bytes.substr(8, length));
    for (const auto& [name, entry] : header.items()) {
      EXPECT_EQ(entry.at("dtype"), "F32") << name;
      shapes[name] = entry.at("shape").get<std::vector<int64_t>>();
      const auto begin = entry.at("data_offsets")[0].get<size_t>(),
                 end = entry.at("data_offsets")[1].get<size_t>();
      values[name].resize((end - begin) / 4);
      EXPECT_LE(8 + length + end, bytes.size()) << name;
      std::memcpy(values[name].data(), bytes.data() + 8 + length + begin, end - begin);
    }
  }
};

}  // namespace keen::testing
