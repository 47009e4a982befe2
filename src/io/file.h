// Files: mapped for reading, written with every error reported, and the steps of a safe replacement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "core/check.h"

namespace keen {

// A whole file, mapped read-only. Raises `exit` naming the path when it cannot be opened or mapped. An empty file
// gives an empty span.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const std::filesystem::path& path, Exit exit);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  std::filesystem::path path_;
};

// The content of a small file. Raises `exit` naming the path.
std::string read_file(const std::filesystem::path& path, Exit exit);

// Writes one file from its beginning. Every failure raises Exit::storage with the path, the bytes that this write
// needed and the bytes free on that file system. Not closing counts as failing: the destructor closes quietly.
class FileWriter {
 public:
  explicit FileWriter(const std::filesystem::path& path);
  FileWriter(const FileWriter&) = delete;
  ~FileWriter();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void sync();   // fsync
  void close();  // fsync and close
  int64_t bytes_written() const { return bytes_written_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t bytes_written_ = 0;
};

// Replaces `path` by `content` as a whole: written beside it under a name that starts with a dot, synced, renamed,
// and the directory synced. A reader sees the old content or the new.
void replace_file(const std::filesystem::path& path, std::string_view content);

// fsync of a directory, so that renames and new names in it survive a power cut.
void sync_directory(const std::filesystem::path& directory);

// XXH3, 64 bits, as 16 hexadecimal digits.
std::string hash_of(std::span<const std::byte> bytes);
std::string hash_of(std::string_view text);

}  // namespace keen
