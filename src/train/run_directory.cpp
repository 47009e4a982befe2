#include "train/run_directory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "io/file.h"

namespace keen {
namespace {

namespace fs = std::filesystem;

// Tells a second process who holds the lock. Only that: the lock itself is on the directory, and ends with
// its holder however that ends.
constexpr const char* kHolderFile = ".lock";

// A killed process keeps its lock until the kernel has taken back its memory.
constexpr auto kPatience = std::chrono::milliseconds(500);

// Names that replace_file leaves when it is killed.
bool is_leftover(const std::string& name) {
  return name.starts_with(".config.json.tmp-") || name.starts_with(".environment.json.tmp-");
}

std::string holder_of(const fs::path& run) {
  pid_t pid = 0;
  try {
    const std::string text = read_file(run / kHolderFile, Exit::usage, FileKind::own);
    std::from_chars(text.data(), text.data() + text.size(), pid);
  } catch (const Error&) {
    // It has just gone.
  }
  const bool alive = pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
  return alive ? fmt::format("process {}", pid) : "another process";
}

}  // namespace

RunDirectory::RunDirectory(const fs::path& path) : path_(path) {
  std::error_code ignored;
  if (fs::exists(path, ignored) && !fs::is_directory(path, ignored))
    fail(Exit::usage, "{}: is a file; a run directory is needed (--run-dir)", path.string());
  make_directories(path);
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) fail(Exit::storage, "{}: cannot open: {}", path.string(), std::strerror(errno));
  try {
    lock();
    refuse_foreign();
    write_holder();
    for (const auto& entry : fs::directory_iterator(path_))
      if (is_leftover(entry.path().filename().string())) fs::remove(entry.path(), ignored);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

RunDirectory::~RunDirectory() {
  std::error_code ignored;
  fs::remove(path_ / kHolderFile, ignored);
  fs::remove(path_, ignored);  // where it is empty: the run never began
  ::close(descriptor_);
}

void RunDirectory::lock() {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK)
      fail(Exit::storage, "{}: cannot lock: {}", path_.string(), std::strerror(errno));
    if (std::chrono::steady_clock::now() > deadline)
      fail(Exit::usage, "{}: {} is writing to this run; wait for it, or choose another --run-dir",
           path_.string(), holder_of(path_));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// For people; a disk that is full already will say so at the first file that matters.
void RunDirectory::write_holder() const {
  std::error_code ignored;
  fs::remove(path_ / kHolderFile, ignored);  // a link there, or a pipe, is not written through
  const int file = ::open((path_ / kHolderFile).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return;
  const std::string text = fmt::format("{}\n", getpid());
  (void)!::write(file, text.data(), text.size());
  ::close(file);
}

void RunDirectory::refuse_foreign() const {
  if (!is_new()) return;
  for (const auto& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (name != kHolderFile && !is_leftover(name))
      fail(Exit::usage,
           "{}: not empty, and no run of keen (it holds {} but no config.json); choose another --run-dir",
           path_.string(), name);
  }
}

bool RunDirectory::is_new() const { return !fs::exists(config()); }

void RunDirectory::write_config(std::string_view text) const { replace_file(config(), text); }

void RunDirectory::write_environment(const Json& json) const {
  replace_file(environment(), json_pages(json) + "\n");
}

}  // namespace keen
