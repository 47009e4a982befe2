#include "data/dataset.h"

#include <glob.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/parallel.h"
#include "io/json.h"

namespace keen {

namespace fs = std::filesystem;

namespace {

// Below this size a shard is always read in full: it takes a moment.
constexpr int64_t kAlwaysRead = int64_t{256} << 20;
constexpr const char* kFormatName = "keen dataset";

// What is no name of a file in the same directory would lead out of it.
std::string file_name_in(const Json& entry, const std::string& source) {
  const std::string name = entry.at("file").get<std::string>();
  if (name.empty() || name.starts_with('.') || name.find_first_of(std::string_view("/\0", 2)) != name.npos)
    fail(Exit::data, "{}: \"file\" is {}; should be the name of a shard beside it", source,
         json_line(entry.at("file")));
  return name;
}

ShardRecord record_from(const Json& entry, const std::string& source) {
  ShardRecord record;
  record.file = file_name_in(entry, source);
  record.split = entry.at("split").get<std::string>();
  record.tokens = integer_in(entry, "tokens", source, Exit::data, 0, kMaxShardTokens);
  record.bytes = integer_in(entry, "bytes", source, Exit::data);
  record.max_id = static_cast<uint32_t>(integer_in(entry, "max_id", source, Exit::data, 0, UINT32_MAX));
  record.checksum = entry.at("xxh3").get<std::string>();
  record.modified_ns = integer_in(entry, "modified_ns", source, Exit::data, INT64_MIN, INT64_MAX);
  return record;
}

// The records of the dataset.json files beside the shards, by the path of the shard.
std::map<fs::path, ShardRecord> recorded_shards(const std::vector<Shard>& shards) {
  std::map<fs::path, ShardRecord> records;
  std::vector<fs::path> seen;
  for (const Shard& shard : shards) {
    const fs::path directory = shard.path().parent_path();
    if (std::find(seen.begin(), seen.end(), directory) != seen.end()) continue;
    seen.push_back(directory);
    if (const auto info = read_dataset_info(directory))
      for (const ShardRecord& record : info->shards) records[directory / record.file] = record;
  }
  return records;
}

// Finds every shard's largest id and checksum: recorded where that can be trusted, read from the file where
// not.
std::vector<ShardScan> scan_all(const std::vector<Shard>& shards, int64_t vocab_size,
                                const std::function<bool()>& stop) {
  const auto records = recorded_shards(shards);
  const int64_t limit = vocab_size > 0 ? vocab_size : int64_t{1} << 32;
  std::vector<const ShardRecord*> recorded(shards.size(), nullptr);
  std::vector<ShardScan> scans(shards.size());
  std::vector<char> trusted(shards.size(), 0);
  for (size_t i = 0; i < shards.size(); ++i) {
    const auto found = records.find(shards[i].path());
    if (found == records.end()) continue;
    const ShardRecord& record = found->second;
    recorded[i] = &record;
    if (shards[i].file_bytes() > kAlwaysRead && shards[i].file_bytes() == record.bytes &&
        record.max_id < limit && modified_ns(shards[i].path()) == record.modified_ns) {
      trusted[i] = 1;
      scans[i] = {record.max_id, -1, record.checksum};
    }
  }
  parallel_for_each(static_cast<int64_t>(shards.size()), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const size_t i = static_cast<size_t>(at);
      if (trusted[i] == 0) scans[i] = scan(shards[i], limit, stop);
    }
  });
  if (stop && stop())
    fail(Exit::stopped, "stopped by a signal while the shards were checked; the same command begins again");
  for (size_t i = 0; i < shards.size(); ++i) {
    const Shard& shard = shards[i];
    if (scans[i].bad_index >= 0)
      fail(Exit::data,
           "{}: token id {} at offset {} (token {}), but the vocabulary has {} ids, 0 to {}; set "
           "model.vocab_size to that "
           "of the tokenizer, or encode the text again",
           shard.path().string(), shard.token(scans[i].bad_index), shard.offset_of(scans[i].bad_index),
           scans[i].bad_index, vocab_size, vocab_size - 1);
    if (recorded[i] != nullptr && recorded[i]->checksum != scans[i].checksum)
      fail(Exit::data,
           "{}: its {} bytes from offset 0 have the checksum {}, but {} records {} bytes with {}; the shard "
           "was damaged or "
           "replaced: restore it, encode the text again, or remove {} if the change is meant",
           shard.path().string(), shard.file_bytes(), scans[i].checksum,
           (shard.path().parent_path() / kDatasetFile).string(), recorded[i]->bytes, recorded[i]->checksum,
           kDatasetFile);
  }
  return scans;
}

}  // namespace

int64_t DatasetInfo::tokens(const std::string& split) const {
  int64_t total = 0;
  for (const ShardRecord& shard : shards)
    if (shard.split == split) total += shard.tokens;
  return total;
}

std::string dataset_info_text(const DatasetInfo& info) {
  Json shards = Json::array();
  for (const ShardRecord& shard : info.shards)
    shards.push_back(Json{{"file", shard.file},
                          {"split", shard.split},
                          {"tokens", shard.tokens},
                          {"bytes", shard.bytes},
                          {"max_id", shard.max_id},
                          {"xxh3", shard.checksum},
                          {"modified_ns", shard.modified_ns}});
  const auto optional = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json(nullptr);
  };
  const Json json{
      {"format", kFormatName},
      {"version", 1},
      {"vocab_size", info.vocab_size},
      {"tokenizer", "tokenizer.model"},
      {"tokenizer_hash", info.tokenizer_hash},
      {"end_of_text", info.end_of_text},
      {"text_bytes", info.text_bytes},
      {"documents", Json{{"train", info.train_documents}, {"validation", info.validation_documents}}},
      {"tokens", Json{{"train", info.tokens("train")}, {"validation", info.tokens("validation")}}},
      {"unigram_loss", optional(info.unigram_loss)},
      {"bigram_loss", optional(info.bigram_loss)},
      {"shards", shards}};
  return json_pages(json) + "\n";
}

void write_dataset_info(const fs::path& directory, const DatasetInfo& info) {
  replace_file(directory / kDatasetFile, dataset_info_text(info));
}

DatasetInfo parse_dataset_info(std::string_view text, const std::string& source) {
  const Json json = parse_json(text, source, Exit::data);
  const auto count = [&](const Json& object, const char* key, int64_t low, int64_t high) {
    return integer_in(object, key, source, Exit::data, low, high);
  };
  const auto loss = [&](const char* key) {
    const Json& value = json.at(key);
    return value.is_null() ? std::nullopt : std::optional(value.get<double>());
  };
  try {
    if (json.at("format").get<std::string>() != kFormatName || json.at("version") != 1)
      fail(Exit::data, "{}: \"format\" and \"version\" must be \"{}\" and 1", source, kFormatName);
    DatasetInfo info;
    info.vocab_size = count(json, "vocab_size", 1, int64_t{INT32_MAX} + 1);
    info.tokenizer_hash = json.at("tokenizer_hash").get<std::string>();
    info.end_of_text = static_cast<int32_t>(count(json, "end_of_text", 0, INT32_MAX));
    info.text_bytes = count(json, "text_bytes", 0, kMostCount);
    info.train_documents = count(json.at("documents"), "train", 0, kMostCount);
    info.validation_documents = count(json.at("documents"), "validation", 0, kMostCount);
    info.unigram_loss = loss("unigram_loss");
    info.bigram_loss = loss("bigram_loss");
    for (const Json& entry : json.at("shards")) info.shards.push_back(record_from(entry, source));
    return info;
  } catch (const Json::exception& error) {
    fail(Exit::data, "{}: not a dataset.json that keen wrote ({}); remove it, or encode the text again",
         source, error.what());
  }
}

std::optional<DatasetInfo> read_dataset_info(const fs::path& directory) {
  const fs::path path = directory / kDatasetFile;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  return parse_dataset_info(read_file(path, Exit::data, FileKind::regular), path.string());
}

std::vector<fs::path> match_files(const std::string& pattern) {
  glob_t matches{};
  std::vector<fs::path> paths;
  const int status = ::glob(pattern.c_str(), GLOB_TILDE, nullptr, &matches);
  for (size_t i = 0; status == 0 && i < matches.gl_pathc; ++i) paths.emplace_back(matches.gl_pathv[i]);
  ::globfree(&matches);
  // A name that holds wildcard characters but means a file is taken as it is.
  std::error_code ignored;
  if (paths.empty() && !pattern.empty() && fs::exists(pattern, ignored)) paths.emplace_back(pattern);
  std::sort(paths.begin(), paths.end());
  return paths;
}

Dataset::Dataset(const std::string& pattern, int64_t vocab_size, const std::function<bool()>& stop)
    : pattern_(pattern), first_{0} {
  const auto paths = match_files(pattern);
  if (paths.empty())
    fail(Exit::data,
         "no shard matches \"{}\" (working directory {}); correct the pattern, or make shards from text: "
         "`keen "
         "tokenize vocab`, then `keen tokenize encode` (data/README.md shows how, and where to get text)",
         pattern, fs::current_path().string());
  for (const fs::path& path : paths) {
    if (fs::is_directory(path))
      fail(Exit::data, "{}: a directory, not a shard; name the shards in it: {}", path.string(),
           (path / "train_*.bin").string());
    shards_.emplace_back(path);
    first_.push_back(first_.back() + shards_.back().tokens());
  }
  if (tokens() == 0)
    fail(Exit::data, "{}: no token in the {} shard(s) that match \"{}\" (0 at offset 8); encode some text",
         paths[0].string(), paths.size(), pattern);
  info_ = read_dataset_info(paths[0].parent_path());
  std::string content;
  const auto scans = scan_all(shards_, vocab_size, stop);
  for (size_t i = 0; i < shards_.size(); ++i) {
    max_id_ = std::max(max_id_, scans[i].max_id);
    content += fmt::format("{} {} {}\n", shards_[i].tokens(), static_cast<int>(shards_[i].width()),
                           scans[i].checksum);
  }
  fingerprint_ = hash_of(content);
}

uint32_t Dataset::token(int64_t index) const {
  check(0 <= index && index < tokens(), "Dataset::token: an index below the number of tokens");
  const auto after = std::upper_bound(first_.begin(), first_.end(), index);
  const size_t shard = static_cast<size_t>(after - first_.begin()) - 1;
  return shards_[shard].token(index - first_[shard]);
}

}  // namespace keen
