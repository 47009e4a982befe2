// Token shards: 256 little-endian int32 of header, then the tokens.
//
//   magic 20240520, version 1: uint16 tokens (the format of llm.c's GPT-2 shards)
//   magic 20240801, version 7: uint32 tokens, for vocabularies over 65,536
//
// header[0] is the magic, header[1] the version, header[2] the number of tokens; the rest is zero.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/file.h"

namespace keen {

constexpr int64_t kShardHeaderBytes = 256 * 4;
// The largest vocabulary whose ids fit the 16-bit format.
constexpr int64_t kMaxNarrowVocabulary = 65536;
// header[2] is an int32.
constexpr int64_t kMaxShardTokens = INT32_MAX;

enum class TokenWidth : int { narrow = 2, wide = 4 };  // bytes a token

constexpr TokenWidth width_for(int64_t vocab_size) {
  return vocab_size <= kMaxNarrowVocabulary ? TokenWidth::narrow : TokenWidth::wide;
}

// One shard, mapped for reading. Opening checks the whole shape of the file: a header, a known magic, its
// version, a count that is not negative, and exactly as many bytes as the count asks for (a shard of no
// tokens is whole). Raises Exit::data naming the file, the offset, what was expected and what was found.
class Shard {
 public:
  explicit Shard(const std::filesystem::path& path);

  int64_t tokens() const { return tokens_; }
  TokenWidth width() const { return width_; }
  int64_t file_bytes() const { return static_cast<int64_t>(file_.bytes().size()); }
  const std::filesystem::path& path() const { return file_.path(); }
  // The whole file, header included.
  std::span<const std::byte> bytes() const { return file_.bytes(); }
  // Where in the file a token lies.
  int64_t offset_of(int64_t index) const { return kShardHeaderBytes + index * static_cast<int64_t>(width_); }

  // The token at `index`, unsigned as stored.
  uint32_t token(int64_t index) const;
  // Copies tokens [begin, begin + out.size()) to `out`; they must lie inside the shard.
  void copy(int64_t begin, std::span<int32_t> out) const;

 private:
  MappedFile file_;
  int64_t tokens_ = 0;
  TokenWidth width_ = TokenWidth::narrow;
};

// What is known of a shard that was written.
struct ShardRecord {
  std::string file;   // its name, without directory
  std::string split;  // "train" or "validation"
  int64_t tokens = 0;
  int64_t bytes = 0;        // of the whole file
  uint32_t max_id = 0;      // the largest token; 0 in an empty shard
  std::string checksum;     // XXH3-64 of the whole file: what `xxhsum -H3` prints
  int64_t modified_ns = 0;  // the file's modification time when it was recorded
};

// Writes a stream of tokens as shards PREFIX_000000.bin, PREFIX_000001.bin, ... of `shard_tokens` tokens each
// (the last one may be shorter; no tokens, no shard). Until `publish`, every shard bears a temporary name
// that starts with a dot, and until it is complete also a header of zeros, so that what a killed program
// leaves is never taken for data. The destructor removes what was not published. Failures to write raise
// Exit::storage.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path directory, std::string prefix, std::string split, TokenWidth width,
              int64_t shard_tokens);
  ShardWriter(const ShardWriter&) = delete;
  ~ShardWriter();

  // Appends tokens; each must be representable in the width and not negative.
  void write(std::span<const int32_t> tokens);
  // Completes the last shard. Nothing can be written after it.
  void finish();
  // The complete shards under their temporary names, in order.
  std::vector<std::filesystem::path> temporary_paths() const;
  // Gives the shards of a finished writer their names, and returns what is known of them. `prefix` replaces
  // the one that the writer was made with.
  std::vector<ShardRecord> publish(const std::string& prefix);

  int64_t tokens() const { return total_tokens_; }

 private:
  std::filesystem::path path_of(size_t shard) const;  // its temporary name
  void complete_shard();

  std::filesystem::path directory_;
  std::string prefix_, split_;
  TokenWidth width_;
  int64_t shard_tokens_, total_tokens_ = 0, tokens_in_shard_ = 0;
  std::unique_ptr<FileWriter> file_;  // the shard being written
  std::vector<ShardRecord> records_;  // the complete ones
  std::vector<std::byte> converted_;  // tokens in the file's width
  uint32_t max_id_ = 0;
  bool published_ = false;
};

// The name under which shard `index` of `prefix` is written: train_000000.bin.
std::string shard_name(const std::string& prefix, size_t index);

// A file's modification time in nanoseconds since 1970.
int64_t modified_ns(const std::filesystem::path& path);

// The largest token id of a shard and the offset in its file of the first that is not below `limit` (-1:
// none), and the XXH3-64 of the whole file, found in one pass over its bytes. `stop` is asked before each
// quarter of a megabyte or so; where it says so, the scan ends there and its result means nothing.
struct ShardScan {
  uint32_t max_id = 0;
  int64_t bad_index = -1;
  std::string checksum;
};
ShardScan scan(const Shard& shard, int64_t limit, const std::function<bool()>& stop = {});

}  // namespace keen
