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

ShardRecord record_from(const Json& entry) {
  ShardRecord record;
  record.file = entry.at("file").get<std::string>();
  record.split = entry.at("split").get<std::string>();
  record.tokens = entry.at("tokens").get<int64_t>();
  record.bytes = entry.at("bytes").get<int64_t>();
  record.max_id = entry.at("max_id").get<uint32_t>();
  record.checksum = entry.at("xxh3").get<std::string>();
  record.modified_ns = entry.at("modified_ns").get<int64_t>();
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

void write_dataset_info(const fs::path& directory, const DatasetInfo& info) {
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
  replace_file(directory / kDatasetFile, json_pages(json) + "\n");
}

std::optional<DatasetInfo> read_dataset_info(const fs::path& directory) {
  const fs::path path = directory / kDatasetFile;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  const Json json = parse_json(read_file(path, Exit::data), path.string(), Exit::data);
  try {
    if (json.at("format").get<std::string>() != kFormatName || json.at("version").get<int>() != 1)
      fail(Exit::data, "{}: \"format\" and \"version\" must be \"{}\" and 1", path.string(), kFormatName);
    DatasetInfo info;
    info.vocab_size = json.at("vocab_size").get<int64_t>();
    info.tokenizer_hash = json.at("tokenizer_hash").get<std::string>();
    info.end_of_text = json.at("end_of_text").get<int32_t>();
    info.text_bytes = json.at("text_bytes").get<int64_t>();
    info.train_documents = json.at("documents").at("train").get<int64_t>();
    info.validation_documents = json.at("documents").at("validation").get<int64_t>();
    if (!json.at("unigram_loss").is_null()) info.unigram_loss = json.at("unigram_loss").get<double>();
    if (!json.at("bigram_loss").is_null()) info.bigram_loss = json.at("bigram_loss").get<double>();
    for (const Json& entry : json.at("shards")) info.shards.push_back(record_from(entry));
    return info;
  } catch (const Json::exception& error) {
    fail(Exit::data, "{}: not a dataset.json that keen wrote ({}); remove it, or encode the text again",
         path.string(), error.what());
  }
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
