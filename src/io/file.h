// Files: mapped for reading, written with every error reported, and the steps of a safe replacement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/check.h"

namespace keen {

// What may lie at a path that is read. Nothing but `any` ever waits for a pipe or reads a device.
enum class FileKind : uint8_t {
  any,      // what a user named: a file, or a pipe
  regular,  // what is looked for beside other files: a file, or a symbolic link to one
  own,      // what a checkpoint is made of: a file that lies there itself, so that it leads nowhere else
};

// A whole file, mapped read-only. Raises `exit` naming the path when it cannot be opened or mapped. An empty
// file gives an empty span. Where the file is cut short while it is mapped, or its disk fails, reading what
// has gone ends the program with `exit` and a message (io/mapping.h).
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const std::filesystem::path& path, Exit exit, FileKind kind = FileKind::regular);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  std::filesystem::path path_;
};

// The content of a small file, or of a pipe. Raises `exit` naming the path, also where there are more than
// 64 MiB in a pipe or in a file of a checkpoint.
std::string read_file(const std::filesystem::path& path, Exit exit, FileKind kind = FileKind::any);

// XXH3, 64 bits (Yann Collet's xxHash 0.8), of bytes that come in pieces.
class Hash {
 public:
  Hash();
  ~Hash();
  Hash(const Hash&) = delete;
  void update(std::span<const std::byte> bytes);
  std::string digits() const;  // 16 hexadecimal digits, of everything so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same, of bytes that are all there.
std::string hash_of(std::span<const std::byte> bytes);
std::string hash_of(std::string_view text);

// Writes one file from its beginning. Every failure raises Exit::storage with the path and the reason; one to
// write also with the bytes that this write needed and the bytes free on that file system. Interrupted and
// short writes are continued. Not closing counts as failing: the destructor closes quietly.
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
  std::string hash() const { return hash_.digits(); }  // of the bytes as they were handed in

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t bytes_written_ = 0;
  Hash hash_;
};

// Appends records to a file that it creates where missing, each by one write(). A record that could not be
// written as a whole is taken back, so that the file always ends with a whole record; errors raise
// Exit::storage as above. Where taking back fails too, lines go on behind a newline, which makes the torn
// part a line of its own; binary records, whose readers would take any byte for a part of the next one, are
// refused until the torn part could be cut off.
class FileAppender {
 public:
  enum class Records : uint8_t { lines, binary };
  explicit FileAppender(const std::filesystem::path& path, Records records = Records::lines);
  FileAppender(const FileAppender&) = delete;
  ~FileAppender();

  void append(std::string_view record);
  void sync();  // fsync
  // Cuts off what follows the last newline: the torn record of a killed process. Returns the bytes cut.
  int64_t cut_torn_line();

 private:
  bool cut_at(int64_t size);

  std::filesystem::path path_;
  Records records_;
  int descriptor_ = -1;
  int64_t torn_at_ = -1;  // where a binary record that could not be taken back begins
};

// Replaces `path` by `content` as a whole: written beside it under a name that starts with a dot, synced,
// renamed, and the directory synced. A reader sees the old content or the new. Raises Exit::storage.
void replace_file(const std::filesystem::path& path, std::string_view content);

// The steps of a safe replacement. All raise Exit::storage naming the path.
void make_directories(const std::filesystem::path& directory);
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);
// Exchanges two names at once. Not every file system can; that too is an error.
void exchange_paths(const std::filesystem::path& a, const std::filesystem::path& b);
// Removes one file or one empty directory; a name that is not there is no error.
void remove_path(const std::filesystem::path& path);
// fsync of a directory, so that renames and new names in it survive a power cut.
void sync_directory(const std::filesystem::path& directory);

// The bytes that an ordinary user may still write on the file system where this path is, or would be, or -1
// where that is unknown.
int64_t free_bytes(const std::filesystem::path& path);

}  // namespace keen
