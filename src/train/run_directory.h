// The directory of one run: who may write to it, and where its files are.
#pragma once

#include <filesystem>
#include <string_view>

#include "io/json.h"
#include "train/run_config.h"

namespace keen {

// Held from opening to destruction by the one process that writes to a run. Whether the config found there
// may be continued is the caller's to decide; a new run writes its config before anything else, which marks
// the directory as a run's.
class RunDirectory {
 public:
  // Creates the directory where missing, and locks it (flock). Raises Exit::usage when another process holds
  // it, naming its pid, when `path` is no directory, or when it holds other things than a run; Exit::storage
  // when it cannot be created. What a killed start left behind is removed.
  explicit RunDirectory(const std::filesystem::path& path);
  RunDirectory(const RunDirectory&) = delete;
  ~RunDirectory();

  bool is_new() const;  // there is no config yet
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.json"; }
  std::filesystem::path environment() const { return path_ / "environment.json"; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

  // What the config says. Raises Exit::usage.
  RunConfig read_config() const { return load_run_config(config(), {}, FileKind::regular); }
  // Both replace the file as a whole; Exit::storage.
  void write_config(std::string_view text) const;
  void write_environment(const Json& environment) const;

 private:
  void lock();
  void refuse_foreign() const;
  void write_holder() const;

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace keen
