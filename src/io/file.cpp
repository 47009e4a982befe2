#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "io/fault.h"
#include "io/mapping.h"

namespace keen {
namespace {

// One write() takes at most this much, so that a stop or a full disk is noticed soon.
constexpr size_t kLargestWrite = size_t{64} << 20;

[[noreturn]] void storage_failure(const std::filesystem::path& path, const char* what, int error) {
  fail(Exit::storage, "{}: cannot {}: {}", path.string(), what, std::strerror(error));
}

[[noreturn]] void open_failure(const std::filesystem::path& path, int error) {
  fail(Exit::storage, "{}: cannot open for writing: {}{}", path.string(), std::strerror(error),
       error == ENOSPC || error == EDQUOT ? "; free some space or write elsewhere" : "");
}

[[noreturn]] void write_failure(const std::filesystem::path& path, size_t needed, int64_t offset, int error) {
  const int64_t free = free_bytes(path);
  fail(Exit::storage, "{}: cannot write {} bytes at offset {}: {} ({} bytes free on that file system){}",
       path.string(), needed, offset, std::strerror(error),
       free < 0 ? std::string("unknown") : std::to_string(free),
       error == ENOSPC || error == EDQUOT ? "; free some space or write elsewhere" : "");
}

// The system calls below go through the fault plan. They return as the plain calls do, with errno set.
int open_file(const std::filesystem::path& path, int flags) {
  if (const auto f = fault::next("open", path.native()); f.error != 0) return errno = f.error, -1;
  int descriptor;
  do descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

ssize_t write_some(const std::filesystem::path& path, int descriptor, const std::byte* data, size_t size) {
  const auto f = fault::next("write", path.native());
  if (f.error != 0) return errno = f.error, -1;
  if (f.shorten) size = std::max<size_t>(size / 2, 1);
  const ssize_t written = ::write(descriptor, data, std::min(size, kLargestWrite));
  if (f.kill_after) fault::kill_process();
  return written;
}

int sync_file(const std::filesystem::path& path, int descriptor) {
  for (;;) {
    const auto f = fault::next("fsync", path.native());
    errno = f.error;
    const int result = f.error != 0 ? -1 : ::fsync(descriptor);
    if (result == 0 || errno != EINTR) return result;
  }
}

// EINTR leaves the descriptor closed on Linux, so close is never repeated.
int close_file(const std::filesystem::path& path, int descriptor) {
  const auto f = fault::next("close", path.native());
  const int result = ::close(descriptor);
  if (f.error != 0) return errno = f.error, -1;
  return result != 0 && errno != EINTR ? -1 : 0;
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::filesystem::path directory_of(const std::filesystem::path& path) {
  const std::filesystem::path parent = path.parent_path();
  return parent.empty() ? "." : parent;
}

// Closes a descriptor on every way out of a function.
struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

struct OpenFile {
  Descriptor descriptor;
  struct stat status;
};

OpenFile open_to_read(const std::filesystem::path& path, Exit exit, FileKind kind) {
  int flags = O_RDONLY | O_NOCTTY;
  if (kind != FileKind::any) flags |= O_NONBLOCK;  // else opening a pipe waits for who writes to it
  if (kind == FileKind::own) flags |= O_NOFOLLOW;
  OpenFile file{{open_file(path, flags)}, {}};
  if (file.descriptor.number < 0 && errno == ELOOP && kind == FileKind::own)
    fail(exit, "{}: is a symbolic link; the files of a checkpoint must lie in its directory themselves",
         path.string());
  if (file.descriptor.number < 0) fail(exit, "{}: cannot open: {}", path.string(), std::strerror(errno));
  if (fstat(file.descriptor.number, &file.status) != 0)
    fail(exit, "{}: cannot read: {}", path.string(), std::strerror(errno));
  const mode_t mode = file.status.st_mode;
  if (S_ISDIR(mode)) fail(exit, "{}: cannot read: it is a directory, not a file", path.string());
  if (!S_ISREG(mode) && kind != FileKind::any)
    fail(exit, "{}: is a device or pipe, not a file", path.string());
  return file;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path, Exit exit, FileKind kind) : path_(path) {
  check(kind != FileKind::any, "MappedFile: a pipe cannot be mapped");
  const OpenFile file = open_to_read(path, exit, kind);
  const size_t size = static_cast<size_t>(file.status.st_size);
  if (size == 0) return;
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor.number, 0);
  if (memory == MAP_FAILED)
    fail(exit, "{}: cannot map {} bytes: {}", path.string(), size, std::strerror(errno));
  bytes_ = {static_cast<const std::byte*>(memory), size};
  watch_mapping(bytes_, path, exit);
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  unwatch_mapping(bytes_);
  munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::string read_file(const std::filesystem::path& path, Exit exit, FileKind kind) {
  constexpr size_t kMostOfOthers = size_t{64} << 20;  // of a pipe, and of a checkpoint: a hole costs no disk
  const OpenFile file = open_to_read(path, exit, kind);
  std::string content;
  char piece[1 << 16];
  for (;;) {
    const ssize_t got = ::read(file.descriptor.number, piece, sizeof piece);
    if (got == 0) return content;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(exit, "{}: cannot read: {}", path.string(), std::strerror(errno));
    content.append(piece, static_cast<size_t>(got));
    if (content.size() > kMostOfOthers && (!S_ISREG(file.status.st_mode) || kind == FileKind::own))
      fail(exit, "{}: more than {} bytes, and no end yet; this is no such file", path.string(),
           kMostOfOthers);
  }
}

struct Hash::State {
  XXH3_state_t* xxh3 = XXH3_createState();
  State() { check(xxh3 != nullptr && XXH3_64bits_reset(xxh3) == XXH_OK, "Hash: memory for its state"); }
  ~State() { XXH3_freeState(xxh3); }
};

Hash::Hash() : state_(std::make_unique<State>()) {}
Hash::~Hash() = default;
void Hash::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_64bits_update(state_->xxh3, bytes.data(), bytes.size());
}
std::string Hash::digits() const { return fmt::format("{:016x}", XXH3_64bits_digest(state_->xxh3)); }

std::string hash_of(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}
std::string hash_of(std::string_view text) { return hash_of(as_bytes(text)); }

FileWriter::FileWriter(const std::filesystem::path& path)
    : path_(path), descriptor_(open_file(path, O_WRONLY | O_CREAT | O_TRUNC)) {
  if (descriptor_ < 0) open_failure(path, errno);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  hash_.update(bytes);
  while (!bytes.empty()) {
    const ssize_t written = write_some(path_, descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) write_failure(path_, bytes.size(), bytes_written_, written == 0 ? ENOSPC : errno);
    bytes_written_ += written;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void FileWriter::write(std::string_view text) { write(as_bytes(text)); }

void FileWriter::sync() {
  if (sync_file(path_, descriptor_) != 0) write_failure(path_, 0, bytes_written_, errno);
}

void FileWriter::close() {
  sync();
  if (close_file(path_, std::exchange(descriptor_, -1)) != 0) write_failure(path_, 0, bytes_written_, errno);
}

FileAppender::FileAppender(const std::filesystem::path& path, Records records)
    : path_(path), records_(records), descriptor_(open_file(path, O_RDWR | O_CREAT | O_APPEND)) {
  if (descriptor_ < 0) open_failure(path, errno);
}

FileAppender::~FileAppender() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool FileAppender::cut_at(int64_t size) {
  const auto f = fault::next("truncate", path_.native());
  errno = f.error;
  return f.error == 0 && ftruncate(descriptor_, size) == 0;
}

void FileAppender::append(std::string_view record) {
  if (torn_at_ >= 0 && !cut_at(torn_at_)) storage_failure(path_, "cut off a torn last record", errno);
  torn_at_ = -1;
  const off_t before = lseek(descriptor_, 0, SEEK_END);
  std::span<const std::byte> rest = as_bytes(record);
  while (!rest.empty()) {
    const ssize_t written = write_some(path_, descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int error = written == 0 ? ENOSPC : errno;
      if (before >= 0 && rest.size() != record.size() && !cut_at(before)) {
        if (records_ == Records::binary)
          torn_at_ = before;
        else
          (void)!::write(descriptor_, "\n", 1);  // the torn part is at least a line of its own
      }
      write_failure(path_, rest.size(), static_cast<int64_t>(before), error);
    }
    rest = rest.subspan(static_cast<size_t>(written));
  }
}

void FileAppender::sync() {
  if (sync_file(path_, descriptor_) != 0) write_failure(path_, 0, lseek(descriptor_, 0, SEEK_END), errno);
}

int64_t FileAppender::cut_torn_line() {
  const off_t size = lseek(descriptor_, 0, SEEK_END);
  off_t end = size;
  char piece[4096];
  while (end > 0) {
    const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(sizeof piece));
    const ssize_t got = pread(descriptor_, piece, static_cast<size_t>(end - begin), begin);
    if (got < 0 && errno == EINTR) continue;
    if (got != end - begin) storage_failure(path_, "read its end", got < 0 ? errno : EIO);
    const std::string_view text(piece, static_cast<size_t>(got));
    if (const size_t newline = text.rfind('\n'); newline != text.npos) {
      end = begin + static_cast<off_t>(newline) + 1;
      break;
    }
    end = begin;
  }
  if (end < size && !cut_at(end)) storage_failure(path_, "cut off a torn last line", errno);
  return size - end;
}

void replace_file(const std::filesystem::path& path, std::string_view content) {
  std::error_code ignored;
  // A rename would fail on a directory, and take away a device or a pipe.
  if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored))
    fail(Exit::storage, "{}: this is not a regular file, and is left as it is", path.string());
  const std::filesystem::path temporary =
      directory_of(path) / fmt::format(".{}.tmp-{}", path.filename().string(), getpid());
  try {
    FileWriter file(temporary);
    file.write(content);
    file.close();
    rename_path(temporary, path);
  } catch (const Error&) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(directory_of(path));
}

void make_directories(const std::filesystem::path& directory) {
  std::error_code error;
  if (std::filesystem::is_directory(directory, error)) return;
  const auto f = fault::next("mkdir", directory.native());
  if (f.error != 0) storage_failure(directory, "create this directory", f.error);
  std::filesystem::create_directories(directory, error);
  if (error) storage_failure(directory, "create this directory", error.value());
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto f = fault::next("rename", to.native());
  errno = f.error;
  if (f.error != 0 || ::rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    fail(Exit::storage, "{}: cannot rename to {}: {}", from.string(), to.string(), std::strerror(error));
  }
}

void exchange_paths(const std::filesystem::path& a, const std::filesystem::path& b) {
  const auto f = fault::next("rename", b.native());
  errno = f.error;
  if (f.error != 0 || ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) != 0)
    storage_failure(b, "exchange names", errno);
}

void remove_path(const std::filesystem::path& path) {
  const auto f = fault::next("remove", path.native());
  errno = f.error;
  if (f.error != 0 || (::remove(path.c_str()) != 0 && errno != ENOENT))
    storage_failure(path, "remove", errno);
}

void sync_directory(const std::filesystem::path& directory) {
  const Descriptor file{open_file(directory, O_RDONLY | O_DIRECTORY)};
  if (file.number < 0) storage_failure(directory, "open this directory", errno);
  // Some file systems know no fsync of directories; they say EINVAL and keep names safe on their own.
  if (sync_file(directory, file.number) != 0 && errno != EINVAL) storage_failure(directory, "sync", errno);
}

int64_t free_bytes(const std::filesystem::path& path) {
  struct statvfs status;
  std::filesystem::path place = path;
  while (statvfs(place.c_str(), &status) != 0) {
    const std::filesystem::path parent = directory_of(place);
    if (errno != ENOENT || parent == place) return -1;
    place = parent;
  }
  if (status.f_blocks == 0) return -1;  // some file systems of user space do not count
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

}  // namespace keen
