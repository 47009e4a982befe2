// Injected failures, for tests of the promises about crashes, full disks, signals and numbers that are not
// finite. Without KEEN_FAULT in the environment a place costs one relaxed load.
//
//   KEEN_FAULT="POINT[@PART]:ACTION[:N[+]]", several of them separated by commas
//
//   POINT   a system call of io/file: open | write | truncate | fsync | close | rename | mkdir | remove;
//           a moment that other code names by `moment`:
//             of a run    start | plan | resume | fork | evaluate | log
//             of a step   data | forward | backward | sum | update
//             of a save   save | snapshot | manifest | verify | publish | published | prune
//           or numbers that other code offers to `spoil`: loss | gradients
//   PART    only calls whose path contains this text count
//   ACTION  ENOSPC | EIO | EACCES | EROFS | EINTR   the call fails with this error
//           short                           a write takes half of its bytes
//           kill                            the process kills itself (SIGKILL) before the call
//           tear                            a write takes half of its bytes, and then the process kills
//                                           itself
//           SIGTERM | SIGINT | SIGUSR1      the process sends itself this signal before the call
//           slow | pause                    the call begins a tenth of a second, or 5 seconds, later
//           nan                             the first of the numbers becomes NaN
//   N       the how-manieth such call (1 by default); N+ means that one and all later ones
//
// Example: KEEN_FAULT="write@model.safetensors:ENOSPC:3+,rename:kill:2".
#pragma once

#include <atomic>
#include <string_view>

#include "core/tensor.h"

namespace keen::fault {

struct Outcome {
  int error = 0;         // an errno to fail with, or 0
  bool shorten = false;  // write half of the bytes
  bool kill_after = false;
  bool spoil = false;
};

// Whether there is a plan. It is asked for in the environment once.
enum class Armed : uint8_t { unknown, no, yes };
inline std::atomic<Armed> armed = Armed::unknown;

// Counts a call against the plan; the slow part of `next`.
Outcome count(std::string_view point, std::string_view path);

// Counts a call, and says what is to happen to it. Does not return where the plan says `kill`. Any thread may
// ask.
inline Outcome next(std::string_view point, std::string_view path) {
  return armed.load(std::memory_order_relaxed) == Armed::no ? Outcome{} : count(point, path);
}

// A moment without a system call of its own, where a kill or a signal may come.
inline void moment(std::string_view point, std::string_view path = {}) { next(point, path); }

// Makes the first of these numbers NaN where the plan says `nan`. Of host memory; others stay as they are.
void spoil(std::string_view point, Tensor numbers);

// Replaces the plan that was read from the environment and restarts its counters (tests inside one process);
// empty: no faults. Raises Exit::usage on a plan that cannot be read.
void arm(std::string_view plan);

[[noreturn]] void kill_process();

}  // namespace keen::fault
