#include "io/mapping.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

#include "core/console.h"

namespace keen {
namespace {

// Entries are used again but never freed, so that the handler can walk over them at any time.
struct Mapping {
  std::atomic<const std::byte*> begin = nullptr;  // nullptr: not in use
  size_t size = 0;
  std::string path;
  Exit exit = Exit::internal;
  Mapping* next = nullptr;
};

std::mutex mutex;  // of those who change the list
std::atomic<Mapping*> mappings = nullptr;
struct sigaction before;

// Runs in the thread that touched the missing byte, which is in the middle of reading memory and holds no
// lock of the library's, so that everything may be called here.
void on_bus_error(int signal, siginfo_t* info, void*) {
  const auto* at = static_cast<const std::byte*>(info->si_addr);
  for (const Mapping* mapping = mappings; mapping != nullptr; mapping = mapping->next) {
    const std::byte* begin = mapping->begin;
    if (begin == nullptr || at < begin || at >= begin + mapping->size) continue;
    std::fflush(stdout);
    write_err(fmt::format(
        "{}keen: {} {}: cannot be read at offset {}: the file was cut short while it was in use, or "
        "its disk failed; restore it, and start the same command again\n",
        clear_line(stderr), styled("error:", Style::red, colour_wanted(stderr)),
        without_controls(mapping->path), at - begin));
    _exit(static_cast<int>(mapping->exit));
  }
  sigaction(SIGBUS, &before, nullptr);
  raise(signal);  // comes when this handler has returned
}

void handle_bus_errors() {
  struct sigaction now = {}, found = {};
  now.sa_sigaction = on_bus_error;
  now.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &now, &found);
  if (found.sa_sigaction != on_bus_error) before = found;  // a library may have taken the signal meanwhile
}

}  // namespace

void watch_mapping(std::span<const std::byte> bytes, const std::filesystem::path& path, Exit exit) {
  const std::lock_guard lock(mutex);
  handle_bus_errors();
  Mapping* mapping = mappings;
  while (mapping != nullptr && mapping->begin != nullptr) mapping = mapping->next;
  const bool is_new = mapping == nullptr;
  if (is_new) mapping = new Mapping;
  mapping->size = bytes.size();
  mapping->path = path.string();
  mapping->exit = exit;
  mapping->begin = bytes.data();
  if (!is_new) return;
  mapping->next = mappings;
  mappings = mapping;
}

void unwatch_mapping(std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex);
  for (Mapping* mapping = mappings; mapping != nullptr; mapping = mapping->next)
    if (mapping->begin == bytes.data()) mapping->begin = nullptr;
}

}  // namespace keen
