#include "data/dataset_writer.h"

#include "data/ngram.h"
#include "io/file.h"

namespace keen {

namespace fs = std::filesystem;

namespace {

// Above this many train tokens the baseline counts the first of them only: it converges early, and is to take
// seconds.
constexpr int64_t kBaselineTokens = 100'000'000, kBaselineTokensWide = 20'000'000;

bool is_ours(const std::string& name) {
  const auto shard = [&](std::string_view prefix) {
    return name.starts_with(prefix) && name.ends_with(".bin") && name.size() == prefix.size() + 10;
  };
  return shard("train_") || shard("val_") || name == kDatasetFile || name == "tokenizer.model";
}

std::vector<Shard> open_all(const std::vector<fs::path>& paths) {
  std::vector<Shard> shards;
  for (const fs::path& path : paths) shards.emplace_back(path);
  return shards;
}

}  // namespace

void clear_dataset(const fs::path& directory, bool force) {
  make_directories(directory);
  std::vector<fs::path> old, unfinished;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (is_ours(name) && name != "tokenizer.model") old.push_back(entry.path());
    if (name.ends_with(".bin.tmp") && (name.starts_with(".train_") || name.starts_with(".val_")))
      unfinished.push_back(entry.path());
  }
  if (!old.empty() && !force)
    fail(Exit::usage,
         "{}: already holds {} and {} other file(s) of a dataset; name another directory with --out, or add "
         "--force to replace them",
         directory.string(), old.front().filename().string(), old.size() - 1);
  // First, so that a directory without it is known to be unfinished.
  remove_path(directory / kDatasetFile);
  for (const fs::path& path : old) remove_path(path);
  for (const fs::path& path : unfinished) remove_path(path);
}

void publish_dataset(const fs::path& directory, DatasetInfo& info, ShardWriter& train,
                     ShardWriter& validation, const std::string& tokenizer) {
  if (train.tokens() > 1 && validation.tokens() > 1) {
    const int64_t most = info.vocab_size <= 8192 ? kBaselineTokens : kBaselineTokensWide;
    const NgramLoss loss = ngram_loss(open_all(train.temporary_paths()),
                                      open_all(validation.temporary_paths()), info.vocab_size, most);
    if (loss.validation_tokens > 0) {
      info.unigram_loss = loss.unigram;
      info.bigram_loss = loss.bigram;
    }
  }
  info.shards = train.publish("train");
  const auto validation_records = validation.publish("val");
  info.shards.insert(info.shards.end(), validation_records.begin(), validation_records.end());
  if (!tokenizer.empty()) replace_file(directory / "tokenizer.model", tokenizer);
  write_dataset_info(directory, info);
}

}  // namespace keen
