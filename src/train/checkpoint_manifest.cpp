#include "train/checkpoint_manifest.h"

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

// Parses what the manifest says, once its bytes are known to be those that were written.
Checkpoint parse_manifest(const std::string& text, const fs::path& directory) {
  const std::string source = (directory / kManifestFile).string();
  Checkpoint checkpoint;
  checkpoint.directory = directory;
  try {
    const Json json = parse_json(text, source, Exit::checkpoint);
    const int64_t version = json.at("version").get<int64_t>();
    if (version > kCheckpointVersion)
      fail(Exit::checkpoint, "{}: format version {} is newer than this keen ({}); use a newer keen", source,
           version, kCheckpointVersion);
    checkpoint.step = json.at("step").get<int64_t>();
    checkpoint.ranks = json.at("ranks").get<int64_t>();
    checkpoint.config_hash = json.at("config_hash").get<std::string>();
    checkpoint.data_fingerprint = json.at("data_fingerprint").get<std::string>();
    checkpoint.hash = json.at("hash").get<std::string>();
    for (const std::string_view name : kCheckpointFiles) {
      const Json& file = json.at("files").at(std::string(name));
      checkpoint.files.push_back(
          {std::string(name), file.at("bytes").get<int64_t>(), file.at("xxh3").get<std::string>()});
    }
  } catch (const Json::exception& error) {
    fail(Exit::checkpoint, "{}: not a manifest of keen ({})", source, error.what());
  }
  return checkpoint;
}

// Compares sizes, and contents if wanted; a sentence for each difference.
std::vector<std::string> problems_of(const Checkpoint& checkpoint, bool contents) {
  std::vector<std::string> problems;
  for (const CheckpointFile& file : checkpoint.files) {
    const fs::path path = checkpoint.file(file.name);
    std::error_code error;
    const auto size = fs::file_size(path, error);
    if (error) {
      problems.push_back(fmt::format("{}: {}", path.string(), error.message()));
    } else if (static_cast<int64_t>(size) != file.size_bytes) {
      problems.push_back(
          fmt::format("{}: {} bytes, the manifest says {}", path.string(), size, file.size_bytes));
    } else if (contents) {
      const MappedFile mapped(path, Exit::checkpoint);
      if (const std::string hash = hash_of(mapped.bytes()); hash != file.hash)
        problems.push_back(
            fmt::format("{}: content hash {}, the manifest says {}", path.string(), hash, file.hash));
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
  const fs::path path = directory / kManifestFile;
  const std::string text = read_file(path, Exit::checkpoint);
  const size_t tail = kBeforeHash.size() + kHashDigits + kAfterHash.size();
  const size_t at = text.size() < tail ? 0 : text.size() - kAfterHash.size() - kHashDigits;
  if (text.size() < tail || !text.ends_with(kAfterHash) ||
      text.compare(at - kBeforeHash.size(), kBeforeHash.size(), kBeforeHash) != 0)
    fail(Exit::checkpoint, "{}: damaged: it does not end with its hash (truncated?)", path.string());
  std::string others = text;
  others.erase(at, kHashDigits);
  if (hash_of(others) != text.substr(at, kHashDigits))
    fail(Exit::checkpoint, "{}: damaged: its bytes have hash {}, it says {}", path.string(), hash_of(others),
         text.substr(at, kHashDigits));

  Checkpoint checkpoint = parse_manifest(text, directory);
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
