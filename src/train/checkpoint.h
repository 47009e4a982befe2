// Checkpoints: the weights, AdamW's averages and the place in the data after a step, written so that a crash
// or a full disk at any moment leaves every earlier checkpoint whole, and read only when every byte is as it
// was written.
//
//   step_00001000/model.safetensors      master weights by name (io/safetensors.h)
//                 optimizer.safetensors  m.NAME and v.NAME of every learned parameter
//                 config.json            the effective config
//                 state.json             TrainState
//                 manifest.json          sizes and hashes of the other files, and a hash of its own other
//                 bytes
//
// While it is written a checkpoint is called .step_00001000.tmp-PID, while it is deleted
// .step_00001000.pruned-PID.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/config.h"
#include "model/params.h"
#include "train/checkpoint_manifest.h"
#include "train/run_config.h"
#include "train/snapshot.h"

namespace keen {

// Where a fork came from.
struct Parent {
  std::string path;
  int64_t step = 0;
  std::string hash;  // of the parent's manifest
  bool operator==(const Parent&) const = default;
};

// Everything beside the tensors that a run needs to go on.
struct TrainState {
  int64_t step = 0;       // completed updates
  int64_t tokens = 0;     // trained on so far
  int64_t sequences = 0;  // consumed so far: the loader's whole state
  // Updates of each parameter since its birth, in the order of Params: AdamW's bias correction counts these,
  // so that a tensor that is new in a fork starts at 0. Stored by name.
  std::vector<int64_t> updates;
  uint64_t seed = 0;
  std::string data_fingerprint;
  std::optional<Parent> parent;
  double elapsed_s = 0;  // spent training, over all starts of this run
  int64_t skipped_steps = 0, failed_saves = 0;
  bool operator==(const TrainState&) const = default;
};

// The text of state.json, and back: raises Exit::checkpoint, naming `source`, for anything that keen does not
// write. Counts of updates go by name; a parameter that the text does not know has 0.
std::string state_text(const TrainState& state, const Params& params);
TrainState parse_state(std::string_view text, const std::string& source, const Params& params);

// Takes a sentence for people: what was found damaged and left out, what could not be deleted.
using Warn = std::function<void(const std::string&)>;

struct SaveRequest {
  const Params& params;  // masters, m and v, on any device and shared out or not: saved a piece at a time
  TrainState state;
  std::string config;  // text of config.json
  // Where ranks share the parameters out, rank 0 saves, and fetches the pieces of the others, which are in
  // serve_pieces (train/pieces.h) until this has ended, whichever way.
  Communicator* comm = nullptr;
  int64_t keep = 3;                      // newest checkpoints that stay
  std::vector<int64_t> keep_steps = {};  // never pruned
  // Where the numbers are, if they were copied aside: of `params` nothing but names, shapes and types is read
  // then, so that training may go on.
  const Snapshot* snapshot = nullptr;
};

// Writes checkpoints/step_N for N = state.step, reads it back, gives it its name and prunes. When this
// returns, the checkpoint survives a power cut. A damaged checkpoint in the way is renamed to
// .damaged-step_N-K, a whole one is replaced. Raises Exit::storage naming the path, the bytes that the
// checkpoint needs and the bytes free; every earlier checkpoint is then as it was, and nothing of the new one
// is left.
Checkpoint save_checkpoint(const std::filesystem::path& checkpoints, const SaveRequest& request,
                           const Warn& warn);
// What the tensors of a checkpoint take on disk, `dtype` being that of the masters; the other files are a few
// KiB. The parameters need no memory.
int64_t checkpoint_bytes(const Params& params, DType dtype);

// Deletes whole checkpoints but the newest `keep` and those in `keep_steps`, and only once one that stays has
// been read back and found whole, as that of `verified_step` has just been. Never touched: damaged ones,
// unfinished ones, and files that keen did not write. What cannot be deleted is a warning.
void prune_checkpoints(const std::filesystem::path& checkpoints, int64_t keep,
                       const std::vector<int64_t>& keep_steps, const Warn& warn, int64_t verified_step = -1);
// Removes what killed processes left half-written or half-deleted. For the holder of the run directory's
// lock.
void clean_up_checkpoints(const std::filesystem::path& checkpoints, const Warn& warn);

// The newest checkpoint in `checkpoints` whose every byte is right; damaged newer ones are named by warnings.
std::optional<Checkpoint> newest_checkpoint(const std::filesystem::path& checkpoints, const Warn& warn);
// Whether any directory is named as a checkpoint, whole or not.
bool has_checkpoints(const std::filesystem::path& checkpoints);
// What a user means by CHECKPOINT: a checkpoint directory, verified, or a run directory, whose newest whole
// one it is. Raises Exit::checkpoint.
Checkpoint resolve_checkpoint(const std::filesystem::path& path, const Warn& warn);

// The config of a checkpoint, with `sets` (as in --set) applied to it. Raises Exit::checkpoint when the file
// is no config, or when the tensors stored beside it are not those of its model: so whoever allocates what
// the config asks for has seen that the file holds as much. Raises Exit::usage for what is wrong with `sets`.
RunConfig checkpoint_config(const Checkpoint& checkpoint, const std::vector<std::string>& sets = {});

// What a load does to one tensor.
struct TensorFate {
  enum class Kind : uint8_t { loaded, fresh, dropped, mismatched } kind;
  std::string name;
  Shape shape;          // of the model; empty when dropped
  Shape stored;         // in the checkpoint; empty when fresh
  std::string initial;  // of a fresh one, for people: "0.168470" or "normal, deviation 0.0200000"
};
std::string_view name_of(TensorFate::Kind kind);  // "loaded", "new", "dropped", "mismatched"

// The model's tensors in the order of Params, then the dropped ones by name.
using LoadReport = std::vector<TensorFate>;

// The scales s and b that a config sets to values of its own, by name: whatever the checkpoint has learned,
// they start as the config says. A stored s or b is taken over only where the config starts it at the same
// value as the checkpoint's config does ("auto" is the same for every context), and learns it if the
// checkpoint did; so swapping ssmax for ssmax_fixed, or for {"kind": "ssmax", "s": 5}, does what it says.
// Raises Exit::checkpoint when the checkpoint's config cannot be read.
std::set<std::string> scales_set_anew(const Checkpoint& checkpoint, const ModelConfig& now);

// Compares names and shapes; loads nothing. Tensors in `anew` are reported as fresh.
LoadReport compare_tensors(const Checkpoint& checkpoint, const Params& params,
                           const std::set<std::string>& anew = {});

enum class Match : uint8_t {
  exact,    // the same tensors, or Exit::checkpoint naming all that are missing, extra or of another shape
  by_name,  // what both have; what is new keeps its value; another shape still raises Exit::checkpoint
};
// Raises Exit::checkpoint naming every tensor that `match` does not allow.
void check_match(const LoadReport& report, Match match, const Checkpoint& checkpoint);
// Fills the masters, converting between float32 and float64. Call Params::round_values afterwards. Tensors in
// `anew` keep their value, as new ones do; only by_name.
LoadReport load_weights(const Checkpoint& checkpoint, Params& params, Match match,
                        const std::set<std::string>& anew = {});

// Fills masters and averages and returns the state, all matched exactly: the run goes on as if it had never
// ended.
TrainState resume_checkpoint(const Checkpoint& checkpoint, Params& params);
// Fills by name what the checkpoint has, and the averages too unless `keep_optimizer` is false; other
// averages, and those of tensors in `anew`, become zero. Returns the parent's state with `parent` set to this
// checkpoint and `updates` counted from each parameter's birth: 0 where the averages were not loaded.
TrainState fork_checkpoint(const Checkpoint& checkpoint, Params& params, bool keep_optimizer,
                           const std::set<std::string>& anew = {});

}  // namespace keen
