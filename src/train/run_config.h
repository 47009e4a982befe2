// What a run is: the whole config file. Members are named as the keys; the defaults here are the defaults of
// the keys. Ranges and meanings stand once, in the lists of fields (run_config.cpp), and are printed by
// --help-config.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "io/json.h"
#include "model/config.h"

namespace keen {

class Fields;
struct Difference;

enum class DeviceChoice : uint8_t { automatic, cpu, cuda };
enum class Precision : uint8_t { automatic, fp32, bf16, fp64 };
enum class ScheduleKind : uint8_t { constant, cosine, linear, wsd };
enum class KeepOrReset : uint8_t { keep, reset };
enum class NonFinite : uint8_t { stop, skip };
enum class Recompute : uint8_t { none, block };
enum class AttentionPath : uint8_t { automatic, cudnn, flash, reference };

// Names in the order of the values: as they stand in a config, and for printing.
inline constexpr std::array<std::string_view, 3> kDeviceNames = {"auto", "cpu", "cuda"};
inline constexpr std::array<std::string_view, 4> kPrecisionNames = {"auto", "fp32", "bf16", "fp64"};
inline constexpr std::array<std::string_view, 4> kScheduleNames = {"constant", "cosine", "linear", "wsd"};
inline constexpr std::array<std::string_view, 2> kKeepOrResetNames = {"keep", "reset"};
inline constexpr std::array<std::string_view, 2> kNonFiniteNames = {"stop", "skip"};
inline constexpr std::array<std::string_view, 2> kRecomputeNames = {"none", "block"};
inline constexpr std::array<std::string_view, 4> kAttentionPathNames = {"auto", "cudnn", "flash",
                                                                        "reference"};

constexpr std::string_view name_of(DeviceChoice x) { return kDeviceNames[static_cast<size_t>(x)]; }
constexpr std::string_view name_of(Precision x) { return kPrecisionNames[static_cast<size_t>(x)]; }
constexpr std::string_view name_of(ScheduleKind x) { return kScheduleNames[static_cast<size_t>(x)]; }
constexpr std::string_view name_of(KeepOrReset x) { return kKeepOrResetNames[static_cast<size_t>(x)]; }
constexpr std::string_view name_of(NonFinite x) { return kNonFiniteNames[static_cast<size_t>(x)]; }
constexpr std::string_view name_of(Recompute x) { return kRecomputeNames[static_cast<size_t>(x)]; }
constexpr std::string_view name_of(AttentionPath x) { return kAttentionPathNames[static_cast<size_t>(x)]; }

struct DataConfig {
  std::string train;                                 // glob of shards; required
  std::optional<std::string> validation, tokenizer;  // glob of shards; a SentencePiece model
  void fields(Fields& f);
};

struct BatchConfig {
  int64_t sequences = 512;       // of a whole update, over all ranks
  int64_t micro_sequences = 32;  // of one forward and backward on one rank
  void fields(Fields& f);
};

struct OptimizerConfig {
  double lr = 6e-4, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double grad_clip = 1;  // limit of the global gradient norm; 0: no clipping
  void fields(Fields& f);
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  int64_t steps = 20000;
  int64_t warmup_steps = 1000;     // may exceed steps: then the run ends while it warms up
  double final_lr_fraction = 0.1;  // of lr, reached at the last step (cosine, linear, wsd)
  double decay_fraction = 0.2;     // of steps, at the end (wsd)
  std::optional<int64_t> stop_after;
  int64_t last_step() const { return std::min(steps, stop_after.value_or(steps)); }
  void fields(Fields& f);
};

struct EvaluateConfig {
  int64_t every = 250;   // steps; 0: never
  int64_t batches = 20;  // of micro_sequences windows
  void fields(Fields& f);
};

struct CheckpointConfig {
  int64_t every = 1000;             // steps; 0: only where a run ends, stops or forks
  int64_t keep = 3;                 // newest ones
  std::vector<int64_t> keep_steps;  // whose checkpoints are never pruned
  bool background = true;           // write a copy while training goes on
  void fields(Fields& f);
};

struct LogConfig {
  int64_t every = 10;        // steps
  bool tensorboard = false;  // event files beside metrics.jsonl
  void fields(Fields& f);
};

struct InitConfig {
  std::optional<std::string> from;  // a checkpoint or run directory
  KeepOrReset optimizer = KeepOrReset::keep, step = KeepOrReset::reset;
  void fields(Fields& f);
};

struct ParallelConfig {
  int64_t zero = 1;  // 1: the optimizer's state is divided over the ranks; 0: every rank has it whole
  int64_t timeout_s = 600;
  void fields(Fields& f);
};

struct RunConfig {
  std::string name = "run";  // of a file without "name": the file's name without .json
  int64_t seed = 1337;       // >= 0
  DeviceChoice device = DeviceChoice::automatic;
  Precision precision = Precision::automatic;
  ModelConfig model;
  DataConfig data;
  BatchConfig batch;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  EvaluateConfig evaluate;
  CheckpointConfig checkpoint;
  LogConfig log;
  InitConfig init;
  ParallelConfig parallel;
  NonFinite non_finite = NonFinite::stop;
  bool deterministic = false;
  Recompute recompute = Recompute::none;
  AttentionPath attention_path = AttentionPath::automatic;
  bool time_gemms = false;

  // The list of fields (io/fields.h), with the checks across them.
  void fields(Fields& f);
};

// Reads a config file and applies --set flags ("model.layers=4") in order. Everything that is wrong with
// either is collected into one Error(Exit::usage), a line each: file or flag, dotted key, value, what would
// be valid.
RunConfig load_run_config(const std::filesystem::path& path, const std::vector<std::string>& sets = {},
                          FileKind kind = FileKind::any);
// As above, from text; `source` stands for the file in errors, `name` is the name of a config without one.
RunConfig parse_run_config(std::string_view text, const std::string& source,
                           const std::vector<std::string>& sets = {}, const std::string& name = "run");

// The effective config: every key with its value, in the order of the fields. Reads back to an equal config.
Json to_json(const RunConfig& config);
std::string effective_config(const RunConfig& config);  // the same as indented text with a newline at the end

// Raises Exit::usage unless batch.sequences is a multiple of micro_sequences x ranks, naming valid values of
// both.
void check_batch(const RunConfig& config, int64_t ranks);
// Micro-batches of one rank in one step.
int64_t accumulation(const RunConfig& config, int64_t ranks);

// Every key in which two configs differ, by meaning and not by spelling: for compare and for a resume event.
std::vector<Difference> differences(const RunConfig& left, const RunConfig& right);
// Those that forbid to continue the run of `before` with the config `now`. Fixed: model, seed,
// batch.sequences, optimizer, and schedule without steps and stop_after. (The data is fixed by its
// fingerprint, not by its path.) Also init.from, where `now` asks for a parent that is not the run's,
// however its path is spelled: continuing would silently not fork. A config that asks for none continues a
// fork.
std::vector<Difference> fixed_differences(const RunConfig& before, const RunConfig& now);

// What --help-config prints: every key, default, valid values, meaning.
std::string help_config();

}  // namespace keen
