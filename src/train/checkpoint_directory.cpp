// The directory of a run's checkpoints: which is the newest whole one, which may go, what crashes left
// behind.
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "io/fault.h"
#include "io/file.h"
#include "train/checkpoint.h"
#include "train/checkpoint_files.h"

namespace keen {
namespace {

namespace fs = std::filesystem;

// All names in a directory; empty when it is not there.
std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

bool is_ours(std::string_view name) {
  return name == kManifestFile ||
         std::find(kCheckpointFiles.begin(), kCheckpointFiles.end(), name) != kCheckpointFiles.end();
}

// The steps of all checkpoint directories that hold any file of ours, the newest first. (One whose own files
// were pruned around a foreign file is no checkpoint any more.)
std::vector<int64_t> steps_in(const fs::path& checkpoints) {
  std::vector<int64_t> steps;
  for (const std::string& name : names_in(checkpoints)) {
    const int64_t step = step_of_name(name);
    std::error_code ignored;
    if (step < 0 || !fs::is_directory(checkpoints / name, ignored)) continue;
    const auto files = names_in(checkpoints / name);
    if (std::any_of(files.begin(), files.end(), is_ours)) steps.push_back(step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

void prune_one(const fs::path& checkpoints, int64_t step, const Warn& warn) {
  const fs::path path = checkpoints / checkpoint_name(step);
  try {
    if (fs::is_symlink(path)) return;  // somebody placed it elsewhere
    const auto files = names_in(path);
    const auto foreign = std::find_if_not(files.begin(), files.end(), is_ours);
    if (foreign != files.end()) {
      remove_checkpoint_files(path);
      warn(fmt::format("{}: pruned, but the directory stays: {} is not keen's", path.string(), *foreign));
      return;
    }
    // Under another name first, so that a crash never leaves half of it under its own.
    const fs::path aside = checkpoints / fmt::format(".{}.pruned-{}", checkpoint_name(step), getpid());
    rename_path(path, aside);
    fault::moment("prune", path.native());
    remove_checkpoint_files(aside);
    remove_path(aside);
  } catch (const std::exception& error) {
    warn(fmt::format("could not prune a checkpoint: {}", error.what()));
  }
}

// Whether this is a name that an unfinished save or deletion leaves: ".step_00000010.tmp-123" or
// ".step_00000010.pruned-123", the number being that of a process.
bool is_leftover(const std::string& name) {
  if (!name.starts_with(".step_")) return false;
  const size_t dot = name.find('.', 1), dash = name.find('-', 1);
  if (dot == name.npos || dash == name.npos || dash < dot || step_of_name(name.substr(1, dot - 1)) < 0)
    return false;
  const std::string kind = name.substr(dot, dash - dot);
  if (kind != ".tmp" && kind != ".pruned") return false;
  pid_t owner = 0;
  const auto [end, error] = std::from_chars(name.data() + dash + 1, name.data() + name.size(), owner);
  return error == std::errc{} && end == name.data() + name.size() && owner > 0;
}

}  // namespace

void remove_checkpoint_files(const fs::path& directory) {
  if (fs::is_symlink(directory)) return;   // what it leads to is not ours
  remove_path(directory / kManifestFile);  // first: without it nobody takes the rest for a checkpoint
  for (const std::string_view name : kCheckpointFiles) remove_path(directory / name);
}

void prune_checkpoints(const fs::path& checkpoints, int64_t keep, const std::vector<int64_t>& keep_steps,
                       const Warn& warn, int64_t verified_step) {
  keep = std::max<int64_t>(keep, 1);
  int64_t kept = 0;
  for (const int64_t step : steps_in(checkpoints)) {
    const fs::path path = checkpoints / checkpoint_name(step);
    try {
      // The newest one that stays must be whole to the last bit; for the others the sizes are enough.
      if (kept == 0 && step != verified_step)
        verify_checkpoint(path);
      else
        read_checkpoint(path);
    } catch (const std::exception&) {
      continue;
    }
    if (kept < keep)
      ++kept;
    else if (std::find(keep_steps.begin(), keep_steps.end(), step) == keep_steps.end())
      prune_one(checkpoints, step, warn);
  }
}

void clean_up_checkpoints(const fs::path& checkpoints, const Warn& warn) {
  for (const std::string& name : names_in(checkpoints)) {
    // The caller holds the lock, so whoever wrote this is gone. That a process with its number lives says
    // nothing: numbers are given out again, and on other machines they are others'.
    if (!is_leftover(name)) continue;
    try {
      remove_checkpoint_files(checkpoints / name);
      remove_path(checkpoints / name);
    } catch (const Error& error) {
      warn(fmt::format("could not clean up what a killed process left: {}", error.what()));
    }
  }
}

std::optional<Checkpoint> newest_checkpoint(const fs::path& checkpoints, const Warn& warn) {
  for (const int64_t step : steps_in(checkpoints)) {
    try {
      return verify_checkpoint(checkpoints / checkpoint_name(step));
    } catch (const Error& error) {
      warn(fmt::format("{} is not whole and is left out: {}", checkpoint_name(step), error.what()));
    }
  }
  return std::nullopt;
}

bool has_checkpoints(const fs::path& checkpoints) {
  const auto names = names_in(checkpoints);
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& name) { return step_of_name(name) >= 0; });
}

Checkpoint resolve_checkpoint(const fs::path& path, const Warn& warn) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored))
    fail(Exit::checkpoint, "{}: no such checkpoint or run directory", path.string());
  const bool is_checkpoint = fs::exists(path / kManifestFile, ignored) ||
                             fs::exists(path / "model.safetensors", ignored) ||
                             step_of_name((path / "").parent_path().filename().string()) >= 0;
  if (is_checkpoint) return verify_checkpoint(path);
  const fs::path checkpoints = fs::is_directory(path / "checkpoints", ignored) ? path / "checkpoints" : path;
  if (auto newest = newest_checkpoint(checkpoints, warn)) return *newest;
  fail(Exit::checkpoint,
       "{}: no whole checkpoint here; give a checkpoint directory (RUN/checkpoints/step_N) or a run "
       "directory that has "
       "one",
       path.string());
}

}  // namespace keen
