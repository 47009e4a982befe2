#include "train/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/staging.h"
#include "io/fault.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/gpt.h"
#include "train/checkpoint_files.h"
#include "train/pieces.h"

namespace keen {
namespace {

namespace fs = std::filesystem;

// A tensor of a file: its name there, and the parameter's array that it is.
struct Named {
  std::string name;
  const Param* param;
  Params::Array array;
};

std::vector<Named> weights_of(const Params& params) {
  std::vector<Named> list;
  for (const Param& param : params.all()) list.push_back({param.name, &param, Params::Array::master});
  return list;
}

std::vector<Named> averages_of(const Params& params) {
  std::vector<Named> list;
  for (const Param& param : params.all()) {
    if (!param.learned) continue;
    list.push_back({"m." + param.name, &param, Params::Array::m});
    list.push_back({"v." + param.name, &param, Params::Array::v});
  }
  return list;
}

std::vector<TensorEntry> entries_of(const std::vector<Named>& list, DType dtype) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, param, array] : list) entries.push_back({name, dtype, param->shape});
  return entries;
}

// Gives the whole array of a parameter away, in pieces.
using ReadArray = std::function<void(const Param& param, Params::Array array,
                                     const std::function<void(std::span<const std::byte>)>& visit)>;

// Writes tensors one after the other, a piece at a time.
CheckpointFile write_tensors(const ReadArray& read, const fs::path& directory, std::string_view name,
                             const std::vector<Named>& list, DType dtype) {
  std::map<std::string_view, const Named*> named;
  for (const Named& tensor : list) named[tensor.name] = &tensor;
  SafetensorsWriter writer(directory / name, entries_of(list, dtype));
  for (const TensorEntry& entry : writer.entries()) {
    const Named& tensor = *named.at(entry.name);
    read(*tensor.param, tensor.array,
         [&](std::span<const std::byte> piece) { writer.write(entry.name, piece); });
  }
  writer.close();
  return {std::string(name), writer.bytes_written(), writer.hash()};
}

CheckpointFile write_text(const fs::path& directory, std::string_view name, std::string_view text) {
  FileWriter writer(directory / name);
  writer.write(text);
  writer.close();
  return {std::string(name), writer.bytes_written(), writer.hash()};
}

TrainState read_state(const Checkpoint& checkpoint, const Params& params) {
  const fs::path path = checkpoint.file("state.json");
  TrainState state = parse_state(read_file(path, Exit::checkpoint, FileKind::own), path.string(), params);
  if (state.step != checkpoint.step)
    fail(Exit::checkpoint, "{}: step {}, but the manifest is of step {}", path.string(), state.step,
         checkpoint.step);
  return state;
}

// Writes all files into `directory`, the manifest last.
Checkpoint write_files(const fs::path& directory, const SaveRequest& request, const ReadArray& read) {
  Checkpoint checkpoint{.directory = directory,
                        .step = request.state.step,
                        .ranks = request.params.sharing().ranks,
                        .config_hash = hash_of(request.config),
                        .data_fingerprint = request.state.data_fingerprint,
                        .files = {},
                        .hash = {}};
  const Params& params = request.params;
  const DType dtype = params.master().dtype;
  checkpoint.files = {write_tensors(read, directory, kCheckpointFiles[0], weights_of(params), dtype),
                      write_tensors(read, directory, kCheckpointFiles[1], averages_of(params), dtype),
                      write_text(directory, kCheckpointFiles[2], request.config),
                      write_text(directory, kCheckpointFiles[3], state_text(request.state, params))};
  fault::moment("manifest", directory.native());
  write_text(directory, kManifestFile, manifest_text(checkpoint));
  sync_directory(directory);
  return checkpoint;
}

// Nothing that cannot be read back as it was written gets a name.
void verify_before_naming(const fs::path& directory) {
  fault::moment("verify", directory.native());
  try {
    verify_checkpoint(directory);
  } catch (const Error& error) {
    fail(Exit::storage, "what was written does not read back: {}", error.what());
  }
}

bool is_whole(const fs::path& directory) {
  try {
    verify_checkpoint(directory);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Gives a finished checkpoint its name.
void publish(const fs::path& temporary, const fs::path& target, const Warn& warn) {
  if (fs::exists(fs::symlink_status(target))) {
    if (is_whole(target)) {
      exchange_paths(temporary, target);
      remove_checkpoint_files(temporary);
      return remove_path(temporary);
    }
    const fs::path parent = target.parent_path();
    const std::string name = target.filename().string();
    fs::path aside;
    for (int k = 1; aside.empty() || fs::exists(fs::symlink_status(aside)); ++k)
      aside = parent / fmt::format(".damaged-{}-{}", name, k);
    rename_path(target, aside);
    warn(fmt::format("{} was not whole; it is now {}", target.string(), aside.filename().string()));
  }
  fault::moment("publish", target.native());
  rename_path(temporary, target);
}

void discard(const fs::path& directory) noexcept {
  try {
    remove_checkpoint_files(directory);
    remove_path(directory);
  } catch (const std::exception&) {
    // The next start cleans up.
  }
}

}  // namespace

std::string state_text(const TrainState& state, const Params& params) {
  check(state.updates.size() == params.all().size(), "checkpoint: one count of updates per parameter");
  Json updates = Json::object();
  for (size_t i = 0; i < state.updates.size(); ++i)
    if (params.all()[i].learned) updates[params.all()[i].name] = state.updates[i];
  Json json = {{"version", kCheckpointVersion},
               {"step", state.step},
               {"tokens", state.tokens},
               {"sequences", state.sequences},
               {"seed", state.seed},
               {"data_fingerprint", state.data_fingerprint},
               {"parent", nullptr},
               {"elapsed_s", state.elapsed_s},
               {"skipped_steps", state.skipped_steps},
               {"failed_saves", state.failed_saves},
               {"updates", updates}};
  if (state.parent)
    json["parent"] = {
        {"path", state.parent->path}, {"step", state.parent->step}, {"hash", state.parent->hash}};
  return json_pages(json) + "\n";
}

TrainState parse_state(std::string_view text, const std::string& source, const Params& params) {
  const auto count = [&](const Json& object, std::string_view key) {
    return integer_in(object, key, source, Exit::checkpoint);
  };
  TrainState state;
  try {
    const Json json = parse_json(text, source, Exit::checkpoint);
    state.step = count(json, "step");
    state.tokens = count(json, "tokens");
    state.sequences = count(json, "sequences");
    if (const Json& seed = json.at("seed"); !seed.is_number_unsigned())
      fail(Exit::checkpoint, "{}: \"seed\" is {}; should be a whole number", source, json_line(seed));
    state.seed = json.at("seed").get<uint64_t>();
    state.data_fingerprint = json.at("data_fingerprint").get<std::string>();
    state.elapsed_s = json.at("elapsed_s").get<double>();
    state.skipped_steps = count(json, "skipped_steps");
    state.failed_saves = count(json, "failed_saves");
    if (const Json& parent = json.at("parent"); !parent.is_null())
      state.parent = Parent{parent.at("path").get<std::string>(), count(parent, "step"),
                            parent.at("hash").get<std::string>()};
    const Json& updates = json.at("updates");
    if (!updates.is_object())
      fail(Exit::checkpoint, "{}: \"updates\" is {}; should be a count for each parameter", source,
           json_line(updates));
    for (const Param& param : params.all())
      state.updates.push_back(param.learned && updates.contains(param.name) ? count(updates, param.name) : 0);
  } catch (const Json::exception& error) {
    fail(Exit::checkpoint, "{}: not a state of keen ({})", source, error.what());
  }
  return state;
}

Checkpoint save_checkpoint(const fs::path& checkpoints, const SaveRequest& request, const Warn& warn) {
  const std::string name = checkpoint_name(request.state.step);
  const fs::path temporary = checkpoints / fmt::format(".{}.tmp-{}", name, getpid());
  Checkpoint checkpoint;
  std::optional<PieceReader> pieces;
  if (request.snapshot == nullptr) pieces.emplace(request.params, request.comm);
  const ReadArray read = [&](const Param& param, Params::Array array, const auto& visit) {
    if (pieces) return pieces->read(param, array, visit);
    visit(request.snapshot->read(param, array));
  };
  fault::moment("save", checkpoints.native());
  try {
    if (!fs::is_directory(checkpoints)) {
      make_directories(checkpoints);
      sync_directory(checkpoints / "..");
    }
    discard(temporary);
    make_directories(temporary);
    checkpoint = write_files(temporary, request, read);
    verify_before_naming(temporary);
    publish(temporary, checkpoints / name, warn);
    sync_directory(checkpoints);
  } catch (const std::exception& error) {
    discard(temporary);
    const auto* own = dynamic_cast<const Error*>(&error);
    const bool of_storage = own != nullptr ? own->exit == Exit::storage
                                           : dynamic_cast<const fs::filesystem_error*>(&error) != nullptr;
    if (!of_storage) throw;
    fail(Exit::storage,
         "checkpoint of step {} not saved: {}; the whole checkpoint needs {} bytes, {} are free",
         request.state.step, error.what(), checkpoint_bytes(request.params, request.params.master().dtype),
         free_bytes(checkpoints));
  }
  checkpoint.directory = checkpoints / name;
  fault::moment("published", checkpoints.native());
  prune_checkpoints(checkpoints, request.keep, request.keep_steps, warn, request.state.step);
  return checkpoint;
}

int64_t checkpoint_bytes(const Params& params, DType dtype) {
  return safetensors_bytes(entries_of(weights_of(params), dtype)) +
         safetensors_bytes(entries_of(averages_of(params), dtype));
}

std::string_view name_of(TensorFate::Kind kind) {
  constexpr std::string_view names[] = {"loaded", "new", "dropped", "mismatched"};
  return names[static_cast<size_t>(kind)];
}

namespace {

LoadReport compare(const SafetensorsFile& file, const Params& params, const std::set<std::string>& anew) {
  LoadReport report;
  std::map<std::string, bool> known;
  for (const Param& param : params.all()) {
    known[param.name] = true;
    TensorFate fate{.kind = TensorFate::Kind::fresh,
                    .name = param.name,
                    .shape = param.shape,
                    .stored = {},
                    .initial = {}};
    const StoredTensor* stored = file.find(param.name);
    if (stored != nullptr && !anew.contains(param.name)) {
      fate.stored = stored->shape;
      fate.kind = stored->shape == param.shape ? TensorFate::Kind::loaded : TensorFate::Kind::mismatched;
    } else {
      fate.initial = param.init.kind == Init::Kind::constant
                         ? fmt::format("{:#.6g}", param.init.value)
                         : fmt::format("normal, deviation {:#.6g}", param.init.value);
    }
    report.push_back(std::move(fate));
  }
  for (const auto& [name, stored] : file.tensors())
    if (!known.contains(name))
      report.push_back({.kind = TensorFate::Kind::dropped,
                        .name = name,
                        .shape = {},
                        .stored = stored.shape,
                        .initial = {}});
  return report;
}

// Of a stored tensor, the elements that lie on this rank.
void load(HostAccess& host, const Params& params, const Param& to, Params::Array array,
          const StoredTensor& from) {
  check(to.shape == from.shape, "load: a tensor of this shape");
  const Params::Elements held = params.held(to, array);
  host.fill(held.tensor, [&](Tensor piece, int64_t first) { copy_values(piece, from, held.first + first); });
}

void load_from(const SafetensorsFile& file, Params& params, const std::set<std::string>& anew) {
  HostAccess host(params.master().device);
  for (Param& param : params.all())
    if (const StoredTensor* stored = file.find(param.name); stored != nullptr && !anew.contains(param.name))
      load(host, params, param, Params::Array::master, *stored);
}

// Averages that must all be there, and no others.
void load_averages_exactly(const Checkpoint& checkpoint, Params& params) {
  const SafetensorsFile file(checkpoint.file("optimizer.safetensors"));
  const std::vector<Named> averages = averages_of(params);
  std::set<std::string> wanted;
  for (const Named& average : averages) wanted.insert(average.name);
  for (const auto& [name, stored] : file.tensors())
    if (!wanted.contains(name))
      fail(Exit::checkpoint, "{}: {} belongs to no learned parameter of the model", file.path().string(),
           name);
  for (const auto& [name, param, array] : averages) {
    const StoredTensor* stored = file.find(name);
    if (stored == nullptr) fail(Exit::checkpoint, "{}: {} is missing", file.path().string(), name);
    if (stored->shape != param->shape)
      fail(Exit::checkpoint, "{}: {} is {}, the model needs {}", file.path().string(), name,
           to_string(stored->shape), to_string(param->shape));
  }
  HostAccess host(params.master().device);
  for (const auto& [name, param, array] : averages) load(host, params, *param, array, *file.find(name));
}

// Averages of one parameter, when both are there in its shape; else zero.
bool load_averages(HostAccess& host, const SafetensorsFile* file, const Params& params, Param& param) {
  const StoredTensor* m = file == nullptr ? nullptr : file->find("m." + param.name);
  const StoredTensor* v = file == nullptr ? nullptr : file->find("v." + param.name);
  if (m == nullptr || v == nullptr || m->shape != param.shape || v->shape != param.shape) {
    const auto zero = [](Tensor piece, int64_t) { std::fill_n(piece.data, piece.bytes(), std::byte{0}); };
    host.fill(param.m, zero);
    host.fill(param.v, zero);
    return false;
  }
  load(host, params, param, Params::Array::m, *m);
  load(host, params, param, Params::Array::v, *v);
  return true;
}

}  // namespace

RunConfig checkpoint_config(const Checkpoint& checkpoint, const std::vector<std::string>& sets) {
  const fs::path path = checkpoint.file("config.json");
  const std::string text = read_file(path, Exit::checkpoint, FileKind::own);
  RunConfig stored;
  try {
    stored = parse_run_config(text, path.string());
  } catch (const Error& error) {
    throw Error(Exit::checkpoint, error.what());
  }
  const Gpt gpt(stored.model, DType::f32);
  check_match(compare_tensors(checkpoint, gpt.params), Match::exact, checkpoint);
  return sets.empty() ? stored : parse_run_config(text, path.string(), sets);
}

std::set<std::string> scales_set_anew(const Checkpoint& checkpoint, const ModelConfig& now) {
  const ModelConfig before = checkpoint_config(checkpoint).model;
  std::set<std::string> anew;
  const double auto_before = auto_s(before.context), auto_now = auto_s(now.context);
  for (size_t l = 0; l < std::min(before.attention.size(), now.attention.size()); ++l) {
    const LayerAttention &old = before.attention[l], &layer = now.attention[l];
    const bool same_s = layer.s == old.s || (layer.s == auto_now && old.s == auto_before);
    const std::string at = fmt::format("blocks.{}.attn.", l);
    if (!same_s || (old.learn_s && !layer.learn_s)) anew.insert(at + "s");
    if (layer.b != old.b || (old.learn_b && !layer.learn_b)) anew.insert(at + "b");
  }
  return anew;
}

LoadReport compare_tensors(const Checkpoint& checkpoint, const Params& params,
                           const std::set<std::string>& anew) {
  return compare(SafetensorsFile(checkpoint.file("model.safetensors")), params, anew);
}

void check_match(const LoadReport& report, Match match, const Checkpoint& checkpoint) {
  constexpr size_t kMostLines = 100;  // a config of somebody else may ask for a hundred thousand tensors
  std::vector<std::string> lines;
  for (const TensorFate& fate : report) {
    if (fate.kind == TensorFate::Kind::mismatched)
      lines.push_back(fmt::format("{}: {} in the checkpoint, {} in the model", fate.name,
                                  to_string(fate.stored), to_string(fate.shape)));
    else if (match == Match::exact && fate.kind == TensorFate::Kind::fresh)
      lines.push_back(
          fmt::format("{}: missing in the checkpoint, {} in the model", fate.name, to_string(fate.shape)));
    else if (match == Match::exact && fate.kind == TensorFate::Kind::dropped)
      lines.push_back(
          fmt::format("{}: {} in the checkpoint, unknown to the model", fate.name, to_string(fate.stored)));
  }
  if (lines.empty()) return;
  if (lines.size() > kMostLines) {
    const std::string rest = fmt::format("and {} others", lines.size() - kMostLines);
    lines.resize(kMostLines);
    lines.push_back(rest);
  }
  fail(Exit::checkpoint, "{}: its tensors do not fit the config's model:\n  {}",
       checkpoint.file("model.safetensors").string(), fmt::join(lines, "\n  "));
}

LoadReport load_weights(const Checkpoint& checkpoint, Params& params, Match match,
                        const std::set<std::string>& anew) {
  check(match == Match::by_name || anew.empty(), "load_weights: an exact match takes over everything");
  const SafetensorsFile file(checkpoint.file("model.safetensors"));
  LoadReport report = compare(file, params, anew);
  check_match(report, match, checkpoint);
  load_from(file, params, anew);
  return report;
}

TrainState resume_checkpoint(const Checkpoint& checkpoint, Params& params) {
  TrainState state = read_state(checkpoint, params);
  load_weights(checkpoint, params, Match::exact);
  load_averages_exactly(checkpoint, params);
  return state;
}

TrainState fork_checkpoint(const Checkpoint& checkpoint, Params& params, bool keep_optimizer,
                           const std::set<std::string>& anew) {
  TrainState state = read_state(checkpoint, params);
  load_weights(checkpoint, params, Match::by_name, anew);
  std::optional<SafetensorsFile> averages;
  if (keep_optimizer) averages.emplace(checkpoint.file("optimizer.safetensors"));
  HostAccess host(params.master().device);
  for (size_t i = 0; i < params.all().size(); ++i) {
    Param& param = params.all()[i];
    const bool kept = averages && !anew.contains(param.name);
    const bool loaded = param.learned && load_averages(host, kept ? &*averages : nullptr, params, param);
    if (!loaded) state.updates[i] = 0;
  }
  state.parent = Parent{fs::absolute(checkpoint.directory).lexically_normal().string(), checkpoint.step,
                        checkpoint.hash};
  return state;
}

}  // namespace keen
