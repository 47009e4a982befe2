// Injected failures, for tests of the promises about crashes and full disks. Without KEEN_FAULT in the
// environment this costs one comparison per system call.
//
//   KEEN_FAULT="POINT[@PART]:ACTION[:N[+]]", several of them separated by commas
//
//   POINT   a system call of io/file: open | write | truncate | fsync | close | rename | mkdir |
//           remove
//           or a moment that other code names by `moment` (save, manifest, published, prune, ...)
//   PART    only calls whose path contains this text count
//   ACTION  ENOSPC | EIO | EACCES | EINTR   the call fails with this error
//           short                           a write takes half of its bytes
//           pause                           the call takes 5 seconds
//           kill                            the process kills itself (SIGKILL) before the call
//           tear                            a write takes half of its bytes, and then the process kills
//           itself
//   N       the how-manieth such call (1 by default); N+ means that one and all later ones
//
// Example: KEEN_FAULT="write@model.safetensors:ENOSPC:3+,rename:kill:2".
#pragma once

#include <string_view>

namespace keen::fault {

struct Outcome {
  int error = 0;         // an errno to fail with, or 0
  bool shorten = false;  // write half of the bytes
  bool kill_after = false;
};

// Counts a call, and says what is to happen to it. Does not return where the plan says `kill`.
Outcome next(std::string_view point, std::string_view path);

// A moment without a system call of its own, where only `kill` and `pause` have an effect.
inline void moment(std::string_view point, std::string_view path = {}) { next(point, path); }

// Replaces the plan that was read from the environment and restarts its counters (tests inside one process);
// empty: no faults. Raises Exit::usage on a plan that cannot be read.
void arm(std::string_view plan);

[[noreturn]] void kill_process();

}  // namespace keen::fault
