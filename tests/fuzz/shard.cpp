// A shard: accepted exactly when the header's count is that of the bytes that follow, and all of it can be
// read.
#include "data/shard.h"

#include <cstring>

#include "target.h"

using namespace keen;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fuzz::Directory directory;
  const std::filesystem::path path = directory.put("shard.bin", fuzz::text_of(data, size));
  const auto shard = fuzz::accepted(Exit::data, path.string() + ":", [&] { return Shard(path); });

  int32_t header[3] = {};
  if (size >= kShardHeaderBytes) std::memcpy(header, data, sizeof header);
  const bool narrow = header[0] == 20240520 && header[1] == 1, wide = header[0] == 20240801 && header[1] == 7;
  const int64_t width = narrow ? 2 : 4;
  const bool whole = (narrow || wide) && header[2] >= 0 &&
                     static_cast<int64_t>(size) == kShardHeaderBytes + header[2] * width;
  fuzz::require(shard.has_value() == whole, "a shard is accepted exactly when it is whole");
  if (!shard) return 0;

  std::vector<int32_t> tokens(static_cast<size_t>(shard->tokens()));
  shard->copy(0, tokens);
  uint32_t most = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    uint32_t stored = 0;
    std::memcpy(&stored, data + kShardHeaderBytes + i * static_cast<size_t>(width),
                static_cast<size_t>(width));
    fuzz::require(
        shard->token(static_cast<int64_t>(i)) == stored && static_cast<uint32_t>(tokens[i]) == stored,
        "tokens are those of the file");
    most = std::max(most, stored);
  }
  const ShardScan all = scan(*shard, int64_t{1} << 32), some = scan(*shard, most);
  fuzz::require(all.max_id == most && all.bad_index < 0, "the largest id is found");
  fuzz::require(tokens.empty() || (some.bad_index >= 0 && shard->token(some.bad_index) == most),
                "an id that is too large is found");
  fuzz::require(all.checksum == hash_of(std::as_bytes(std::span(data, size))), "the checksum is the file's");
  return 0;
}
