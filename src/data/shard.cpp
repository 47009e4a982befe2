#include "data/shard.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "core/parallel.h"

namespace keen {

namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian");

constexpr int32_t kNarrowMagic = 20240520, kNarrowVersion = 1;
constexpr int32_t kWideMagic = 20240801, kWideVersion = 7;

int32_t header_field(std::span<const std::byte> bytes, int index) {
  int32_t value;
  std::memcpy(&value, bytes.data() + index * 4, 4);
  return value;
}

// Writes the header over the zeros at the start of a file whose tokens are all on disk.
void write_header(const fs::path& path, TokenWidth width, int64_t tokens) {
  std::array<int32_t, 3> fields = {kNarrowMagic, kNarrowVersion, static_cast<int32_t>(tokens)};
  if (width == TokenWidth::wide) fields = {kWideMagic, kWideVersion, static_cast<int32_t>(tokens)};
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0)
    fail(Exit::storage, "{}: cannot be opened to write its header: {}", path.string(), std::strerror(errno));
  const bool written =
      ::pwrite(file, fields.data(), sizeof fields, 0) == ssize_t{sizeof fields} && ::fsync(file) == 0;
  const int error = errno;
  ::close(file);
  if (!written)
    fail(Exit::storage, "{}: its header cannot be written: {}", path.string(), std::strerror(error));
}

template <class T> uint32_t max_of(const T* tokens, int64_t count) {
  uint32_t most = 0;
  // One piece, for the sake of the wider vectors: the threads work on several shards.
  parallel_for(count, count, [&](int64_t begin, int64_t end) {
    T largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = begin; i < end; ++i) largest = tokens[i] > largest ? tokens[i] : largest;
    most = largest;
  });
  return most;
}

// Hashes and searches in pieces that stay in the cache, so that memory is read once.
template <class T>
ShardScan scan_tokens(const Shard& shard, int64_t limit, const std::function<bool()>& stop) {
  constexpr int64_t kPiece = 1 << 17;
  ShardScan found;
  Hash hash;
  hash.update(shard.bytes().first(kShardHeaderBytes));
  const T* tokens = reinterpret_cast<const T*>(shard.bytes().data() + kShardHeaderBytes);
  for (int64_t begin = 0; begin < shard.tokens(); begin += kPiece) {
    if (stop && stop()) return found;
    const int64_t count = std::min(kPiece, shard.tokens() - begin);
    hash.update(std::as_bytes(std::span(tokens + begin, static_cast<size_t>(count))));
    const uint32_t most = max_of(tokens + begin, count);
    found.max_id = std::max(found.max_id, most);
    if (most < limit || found.bad_index >= 0) continue;
    found.bad_index =
        std::find_if(tokens + begin, tokens + begin + count, [&](T t) { return t >= limit; }) - tokens;
  }
  found.checksum = hash.digits();
  return found;
}

}  // namespace

Shard::Shard(const fs::path& path) : file_(path, Exit::data) {
  const std::string name = path.string();
  const int64_t size = file_bytes();
  if (size < kShardHeaderBytes)
    fail(
        Exit::data,
        "{}: {} bytes at offset 0, but a shard begins with a header of {}; the file is cut short or no shard",
        name, size, kShardHeaderBytes);
  const int32_t magic = header_field(bytes(), 0), version = header_field(bytes(), 1),
                count = header_field(bytes(), 2);
  if (magic != kNarrowMagic && magic != kWideMagic)
    fail(Exit::data,
         "{}: the magic number at offset 0 is {}, but a shard has {} (16-bit tokens) or {} (32-bit tokens); "
         "write shards "
         "with `keen tokenize encode`",
         name, magic, kNarrowMagic, kWideMagic);
  width_ = magic == kNarrowMagic ? TokenWidth::narrow : TokenWidth::wide;
  const int32_t known = magic == kNarrowMagic ? kNarrowVersion : kWideVersion;
  if (version != known)
    fail(Exit::data,
         "{}: version {} at offset 4, but only version {} is known for magic {}; encode the text again", name,
         version, known, magic);
  if (count < 0) fail(Exit::data, "{}: a token count of {} at offset 8; the header is damaged", name, count);
  tokens_ = count;
  const int64_t expected = offset_of(tokens_);
  if (size != expected) {
    const int64_t odd = (size - kShardHeaderBytes) % static_cast<int64_t>(width_);
    fail(Exit::data,
         "{}: {} bytes expected for the {} tokens of {} bytes that its header counts, but {} found: {} at "
         "offset {}{}",
         name, expected, tokens_, static_cast<int>(width_), size,
         size < expected ? "it ends early" : "bytes are left over", std::min(size, expected),
         odd != 0 ? ", in the middle of a token" : "");
  }
}

uint32_t Shard::token(int64_t index) const {
  check(0 <= index && index < tokens_, "Shard::token: an index inside the shard");
  const std::byte* at = bytes().data() + offset_of(index);
  if (width_ == TokenWidth::narrow) return *reinterpret_cast<const uint16_t*>(at);
  return *reinterpret_cast<const uint32_t*>(at);
}

void Shard::copy(int64_t begin, std::span<int32_t> out) const {
  const int64_t count = static_cast<int64_t>(out.size());
  check(0 <= begin && begin + count <= tokens_, "Shard::copy: a range inside the shard");
  const std::byte* from = bytes().data() + offset_of(begin);
  if (width_ == TokenWidth::narrow)
    std::copy_n(reinterpret_cast<const uint16_t*>(from), count, out.begin());
  else
    std::memcpy(out.data(), from, out.size_bytes());
}

ShardScan scan(const Shard& shard, int64_t limit, const std::function<bool()>& stop) {
  return shard.width() == TokenWidth::narrow ? scan_tokens<uint16_t>(shard, limit, stop)
                                             : scan_tokens<uint32_t>(shard, limit, stop);
}

std::string shard_name(const std::string& prefix, size_t index) {
  return fmt::format("{}_{:06}.bin", prefix, index);
}

int64_t modified_ns(const fs::path& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) fail(Exit::data, "{}: {}", path.string(), std::strerror(errno));
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

ShardWriter::ShardWriter(fs::path directory, std::string prefix, std::string split, TokenWidth width,
                         int64_t shard_tokens)
    : directory_(std::move(directory)),
      prefix_(std::move(prefix)),
      split_(std::move(split)),
      width_(width),
      shard_tokens_(shard_tokens) {
  check(0 < shard_tokens && shard_tokens <= kMaxShardTokens,
        "ShardWriter: a shard length between 1 and 2^31 - 1");
}

ShardWriter::~ShardWriter() {
  if (published_) return;
  const size_t shards = records_.size() + (file_ != nullptr ? 1 : 0);
  file_.reset();
  std::error_code ignored;
  for (size_t shard = 0; shard < shards; ++shard) fs::remove(path_of(shard), ignored);
}

fs::path ShardWriter::path_of(size_t shard) const {
  return directory_ / fmt::format(".{}.tmp", shard_name(prefix_, shard));
}

void ShardWriter::write(std::span<const int32_t> tokens) {
  while (!tokens.empty()) {
    if (file_ == nullptr) {
      file_ = std::make_unique<FileWriter>(path_of(records_.size()));
      const std::array<std::byte, kShardHeaderBytes> zeros{};
      file_->write(std::span<const std::byte>(zeros));
      tokens_in_shard_ = 0;
      max_id_ = 0;
    }
    const size_t count = std::min(tokens.size(), static_cast<size_t>(shard_tokens_ - tokens_in_shard_));
    const size_t width = static_cast<size_t>(width_);
    converted_.resize(count * width);
    uint32_t most = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t token = static_cast<uint32_t>(tokens[i]);
      most = std::max(most, token);
      std::memcpy(converted_.data() + i * width, &token, width);
    }
    check(most < (width_ == TokenWidth::narrow ? kMaxNarrowVocabulary : int64_t{INT32_MAX} + 1),
          "ShardWriter: a token that fits the width");
    max_id_ = std::max(max_id_, most);
    file_->write(std::span<const std::byte>(converted_));
    tokens_in_shard_ += static_cast<int64_t>(count);
    total_tokens_ += static_cast<int64_t>(count);
    tokens = tokens.subspan(count);
    if (tokens_in_shard_ == shard_tokens_) complete_shard();
  }
}

void ShardWriter::complete_shard() {
  const fs::path path = path_of(records_.size());
  file_->close();
  write_header(path, width_, tokens_in_shard_);
  ShardRecord record;
  record.file = shard_name(prefix_, records_.size());
  record.split = split_;
  record.tokens = tokens_in_shard_;
  record.max_id = max_id_;
  const MappedFile written(path, Exit::storage);
  record.bytes = static_cast<int64_t>(written.bytes().size());
  record.checksum = hash_of(written.bytes());
  record.modified_ns = modified_ns(path);
  // The shard stays in the hands of `file_` until it is recorded, so that a failure above removes it.
  records_.push_back(record);
  file_.reset();
}

void ShardWriter::finish() {
  if (file_ != nullptr) complete_shard();
}

std::vector<fs::path> ShardWriter::temporary_paths() const {
  std::vector<fs::path> paths;
  for (size_t shard = 0; shard < records_.size(); ++shard) paths.push_back(path_of(shard));
  return paths;
}

std::vector<ShardRecord> ShardWriter::publish(const std::string& prefix) {
  check(file_ == nullptr && !published_, "ShardWriter::publish: once, after finish");
  for (size_t shard = 0; shard < records_.size(); ++shard) {
    records_[shard].file = shard_name(prefix, shard);
    rename_path(path_of(shard), directory_ / records_[shard].file);
  }
  published_ = true;
  sync_directory(directory_);
  return records_;
}

}  // namespace keen
