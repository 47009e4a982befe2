#include "train/checkpoint_manifest.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/json.h"

namespace keen {
namespace {

namespace fs = std::filesystem;

// The manifest ends with its hash, at a place that is known without parsing.
constexpr std::string_view kBeforeHash = ",\n  \"hash\": \"", kAfterHash = "\"\n}\n";
constexpr size_t kHashDigits = 16;

// Raises unless the text ends with its hash and has it.
void check_hash(const std::string& text, const std::string& source) {
  const size_t tail = kBeforeHash.size() + kHashDigits + kAfterHash.size();
  const size_t at = text.size() < tail ? 0 : text.size() - kAfterHash.size() - kHashDigits;
  if (text.size() < tail || !text.ends_with(kAfterHash) ||
      text.compare(at - kBeforeHash.size(), kBeforeHash.size(), kBeforeHash) != 0)
    fail(Exit::checkpoint, "{}: damaged: it does not end with its hash (truncated?)", source);
  std::string others = text;
  others.erase(at, kHashDigits);
  if (hash_of(others) != text.substr(at, kHashDigits))
    fail(Exit::checkpoint, "{}: damaged: its bytes have hash {}, it says {}", source, hash_of(others),
         text.substr(at, kHashDigits));
}

std::vector<CheckpointFile> files_in(const Json& files, const std::string& source) {
  std::vector<CheckpointFile> list;
  for (const std::string_view name : kCheckpointFiles) {
    const Json& file = files.at(std::string(name));
    list.push_back({std::string(name), integer_in(file, "bytes", source, Exit::checkpoint),
                    file.at("xxh3").get<std::string>()});
  }
  for (const auto& [name, file] : files.items())
    if (std::find(kCheckpointFiles.begin(), kCheckpointFiles.end(), name) == kCheckpointFiles.end())
      fail(Exit::checkpoint, "{}: names {}, which is no file of a checkpoint", source, json_line(Json(name)));
  return list;
}

// Compares sizes, and contents if wanted; a sentence for each difference.
std::vector<std::string> problems_of(const Checkpoint& checkpoint, bool contents) {
  std::vector<std::string> problems;
  for (const CheckpointFile& file : checkpoint.files) {
    const fs::path path = checkpoint.file(file.name);
    try {
      const MappedFile mapped(path, Exit::checkpoint, FileKind::own);
      const int64_t size = std::ssize(mapped.bytes());
      if (size != file.size_bytes)
        problems.push_back(
            fmt::format("{}: {} bytes, the manifest says {}", path.string(), size, file.size_bytes));
      else if (const std::string hash = contents ? hash_of(mapped.bytes()) : file.hash; hash != file.hash)
        problems.push_back(
            fmt::format("{}: content hash {}, the manifest says {}", path.string(), hash, file.hash));
    } catch (const Error& error) {
      problems.push_back(error.what());
    }
  }
  const int64_t named = step_of_name(checkpoint.directory.filename().string());
  if (named >= 0 && named != checkpoint.step)
    problems.push_back(
        fmt::format("{}: the manifest is of step {}", checkpoint.directory.string(), checkpoint.step));
  return problems;
}

Checkpoint read_and_check(const fs::path& given, bool contents) {
  fs::path directory = given.lexically_normal();
  if (!directory.has_filename()) directory = directory.parent_path();  // a trailing slash
  const std::string text = read_file(directory / kManifestFile, Exit::checkpoint, FileKind::own);
  const Checkpoint checkpoint = parse_manifest(text, directory);
  const std::vector<std::string> problems = problems_of(checkpoint, contents);
  if (!problems.empty()) {
    std::string list;
    for (const std::string& problem : problems) list += (list.empty() ? "" : "\n  ") + problem;
    fail(Exit::checkpoint, "damaged checkpoint: {}", list);
  }
  return checkpoint;
}

}  // namespace

std::string manifest_text(Checkpoint& checkpoint) {
  Json json = {{"format", "keen checkpoint"},
               {"version", kCheckpointVersion},
               {"step", checkpoint.step},
               {"ranks", checkpoint.ranks},
               {"config_hash", checkpoint.config_hash},
               {"data_fingerprint", checkpoint.data_fingerprint}};
  for (const CheckpointFile& file : checkpoint.files)
    json["files"][file.name] = {{"bytes", file.size_bytes}, {"xxh3", file.hash}};
  std::string text = json_pages(json);
  check(text.ends_with("\n}"), "manifest: an object over several lines");
  text.resize(text.size() - 2);
  text += kBeforeHash;
  const size_t at = text.size();
  text += kAfterHash;
  checkpoint.hash = hash_of(text);
  return text.insert(at, checkpoint.hash);
}

Checkpoint parse_manifest(const std::string& text, const fs::path& directory) {
  const std::string source = (directory / kManifestFile).string();
  check_hash(text, source);
  const auto count = [&](const Json& json, std::string_view key, int64_t low) {
    return integer_in(json, key, source, Exit::checkpoint, low);
  };
  Checkpoint checkpoint;
  checkpoint.directory = directory;
  try {
    const Json json = parse_json(text, source, Exit::checkpoint);
    if (const int64_t version = count(json, "version", 1); version > kCheckpointVersion)
      fail(Exit::checkpoint, "{}: format version {} is newer than this keen ({}); use a newer keen", source,
           version, kCheckpointVersion);
    checkpoint.step = count(json, "step", 0);
    checkpoint.ranks = count(json, "ranks", 1);
    checkpoint.config_hash = json.at("config_hash").get<std::string>();
    checkpoint.data_fingerprint = json.at("data_fingerprint").get<std::string>();
    checkpoint.hash = json.at("hash").get<std::string>();
    checkpoint.files = files_in(json.at("files"), source);
  } catch (const Json::exception& error) {
    fail(Exit::checkpoint, "{}: not a manifest of keen ({})", source, error.what());
  }
  return checkpoint;
}

Checkpoint read_checkpoint(const fs::path& directory) { return read_and_check(directory, false); }
Checkpoint verify_checkpoint(const fs::path& directory) { return read_and_check(directory, true); }

std::string checkpoint_name(int64_t step) { return fmt::format("step_{:08}", step); }

int64_t step_of_name(std::string_view name) {
  constexpr std::string_view kPrefix = "step_";
  if (!name.starts_with(kPrefix)) return -1;
  int64_t step = -1;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  return error == std::errc{} && step >= 0 && name == checkpoint_name(step) ? step : -1;
}

}  // namespace keen
