// Context: what an op needs besides its tensors. One per rank, passed first to every op; there are no
// globals.
#pragma once

#include <memory>

#include "core/buffer.h"
#include "core/build.h"

namespace keen {

// State that a library wants kept between calls (GEMM primitives, streams). Made by the op that needs it.
struct LibraryState {
  virtual ~LibraryState() = default;
};

struct Context {
  Device device = Device::cpu;
  // A planning pass runs the real code with tensors that have no memory: shapes are checked and scratch is
  // measured, but no body runs.
  bool planning = false;
  Arena scratch{Device::cpu};
  std::unique_ptr<LibraryState>
      stream;  // the CUDA stream that every op of this context runs in (core/launch.cuh)
  std::unique_ptr<LibraryState> gemm, cudnn;
  std::unique_ptr<LibraryState> tables;  // where the host writes AdamW's tables for CUDA
  // On CUDA, time the GEMM library's algorithms once a shape instead of taking the one that it proposes, and
  // products whose kernel does what goes along with them against kernels apart. The choice is kept in a file
  // (ops/gemm_choice.h).
  bool time_gemms = false;

  explicit Context(Device device = Device::cpu) : device(device), scratch(device) {}
};

// Gives back at the end of a block what it took from the scratch arena.
class ScratchScope {
 public:
  explicit ScratchScope(Context& ctx) : arena_(ctx.scratch), mark_(arena_.mark()) {}
  ~ScratchScope() { arena_.release(mark_); }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Arena& arena_;
  int64_t mark_;
};

// Runs body.operator()<device>() for the context's device: the one place where an op chooses its body, and
// where planning stops. A build without CUDA never names a CUDA symbol, so there are no stubs.
template <class F> void on_device(Context& ctx, F&& body) {
  if (ctx.planning) return;
  if (ctx.device == Device::cpu) return body.template operator()<Device::cpu>();
  if constexpr (kCudaBuilt)
    body.template operator()<Device::cuda>();
  else
    fail(Exit::device, "device: this build of keen has no CUDA backend; set \"device\": \"cpu\"");
}

}  // namespace keen
