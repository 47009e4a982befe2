// What a mapped file that loses its bytes says. Who cuts a file short while it is mapped, or whose disk
// fails, gets SIGBUS from the kernel at the next access, which by itself ends the program without a word.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "core/check.h"

namespace keen {

// From here to unwatch_mapping, an access to `bytes` that raises SIGBUS ends the program with `exit`, and the
// message names the path and the offset. Nothing is saved then: what was computed from the missing bytes is
// unknown, and a run goes on from its last checkpoint. Any other SIGBUS does what it did before. May be
// called by any thread.
void watch_mapping(std::span<const std::byte> bytes, const std::filesystem::path& path, Exit exit);
void unwatch_mapping(std::span<const std::byte> bytes);

}  // namespace keen
