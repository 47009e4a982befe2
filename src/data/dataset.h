// Dataset: the shards that a glob names, checked before they are used. DatasetInfo: the dataset.json beside
// them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/shard.h"

namespace keen {

// dataset.json, written last by `keen tokenize encode`: what was encoded, and how to tell whether it is still
// whole.
struct DatasetInfo {
  int64_t vocab_size = 0;
  std::string tokenizer_hash;  // XXH3-64 of the model file
  int32_t end_of_text = 0;
  int64_t text_bytes = 0;  // of the documents that were encoded
  int64_t train_documents = 0, validation_documents = 0;
  // Cross-entropy of the validation tokens under counts of the train tokens, in nats per token
  // (data/ngram.h); absent without validation tokens.
  std::optional<double> unigram_loss, bigram_loss;
  std::vector<ShardRecord> shards;

  // Total tokens of the shards of a split.
  int64_t tokens(const std::string& split) const;
};

constexpr const char* kDatasetFile = "dataset.json";

void write_dataset_info(const std::filesystem::path& directory, const DatasetInfo& info);
// The text of dataset.json, and back: raises Exit::data, naming `source`, for anything that keen does not
// write. Shards lie beside the file, so a name that leads elsewhere is refused.
std::string dataset_info_text(const DatasetInfo& info);
DatasetInfo parse_dataset_info(std::string_view text, const std::string& source);
// The dataset.json of a directory, or nothing when there is none. Raises Exit::data, naming the file, when it
// is there but cannot be understood.
std::optional<DatasetInfo> read_dataset_info(const std::filesystem::path& directory);

// The shards whose paths match a pattern (as in a shell: * ? [...]), sorted by path; a pattern without
// wildcards names one file.
//
// Opening finds bad data before the first step and raises Exit::data: a pattern without a match, a damaged
// shard, no token at all, a token id that is not below the vocabulary (with file and offset), and a shard
// whose content is not the one that a dataset.json beside it records. For that every shard is read once,
// several at a time, with one exception: a shard over 256 MiB whose size and modification time are the
// recorded ones is taken to be the one that was hashed when it was written.
class Dataset {
 public:
  // `vocab_size` 0 leaves the ids unchecked. `stop` is asked now and then, by any thread; where it says so,
  // the reading ends early with Exit::stopped.
  Dataset(const std::string& pattern, int64_t vocab_size, const std::function<bool()>& stop = {});

  const std::string& pattern() const { return pattern_; }
  const std::vector<Shard>& shards() const { return shards_; }
  int64_t tokens() const { return first_.back(); }
  // The largest id in any shard.
  uint32_t max_id() const { return max_id_; }
  // The token at a global index: shard after shard.
  uint32_t token(int64_t index) const;
  // 16 hexadecimal digits that depend on the content and order of the shards, not on their names: a hash over
  // each shard's token count, width and the XXH3-64 of its whole file.
  const std::string& fingerprint() const { return fingerprint_; }
  // The dataset.json in the directory of the first shard.
  const std::optional<DatasetInfo>& info() const { return info_; }

 private:
  std::string pattern_;
  std::vector<Shard> shards_;
  std::vector<int64_t> first_;  // global index of each shard's first token, and the total
  uint32_t max_id_ = 0;
  std::string fingerprint_;
  std::optional<DatasetInfo> info_;
};

// The files that match a pattern, sorted by path. No match gives an empty list.
std::vector<std::filesystem::path> match_files(const std::string& pattern);

}  // namespace keen
