// The manifest of a checkpoint: which bytes it is made of.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"

namespace keen {

inline constexpr int64_t kCheckpointVersion = 1;
inline constexpr std::string_view kManifestFile = "manifest.json";
inline constexpr std::array<std::string_view, 4> kCheckpointFiles = {
    "model.safetensors", "optimizer.safetensors", "config.json", "state.json"};

struct CheckpointFile {
  std::string name;
  int64_t size_bytes = 0;
  std::string hash;  // XXH3
};

// A checkpoint on disk, as its manifest describes it.
struct Checkpoint {
  std::filesystem::path directory;
  int64_t step = 0;
  int64_t ranks = 1;  // that wrote it; any number can read it
  std::string config_hash, data_fingerprint;
  std::vector<CheckpointFile> files;  // in the order of kCheckpointFiles
  std::string hash;                   // of the manifest: names this checkpoint's exact content

  std::filesystem::path file(std::string_view name) const { return directory / name; }
};

// The text of manifest.json. Sets checkpoint.hash, which covers every byte of the text but its own 16 digits.
std::string manifest_text(Checkpoint& checkpoint);

// The checkpoint that this text describes, which must end with its own right hash and name the files of a
// checkpoint and no others. Raises Exit::checkpoint, naming the directory's manifest.
Checkpoint parse_manifest(const std::string& text, const std::filesystem::path& directory);

// Reads manifest.json and compares the sizes of all files. Cheap. Raises Exit::checkpoint naming everything
// that is wrong: a damaged manifest, missing files, other sizes, a directory whose name is another step's.
//
// A checkpoint may come from anybody. Its directory may lie behind a symbolic link, but what is in it must be
// plain files: a link leads elsewhere, and a pipe would be waited for.
Checkpoint read_checkpoint(const std::filesystem::path& directory);

// As read_checkpoint, and compares the hash of every file: no changed bit goes unseen.
Checkpoint verify_checkpoint(const std::filesystem::path& directory);

// "step_00001000", and back: -1 for any other name.
std::string checkpoint_name(int64_t step);
int64_t step_of_name(std::string_view name);

}  // namespace keen
