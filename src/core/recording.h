// Work of a device that repeats, at the price of one launch.
#pragma once

#include <functional>
#include <memory>

#include "core/context.h"

namespace keen {

// On CUDA a graph of what `work` puts into the context's stream. The first run is the work itself (libraries
// make their plans then, and may wait), the second records it and launches the recording, and the others
// launch that alone: so the work must be the same every time, in the same memory, and take what changes from
// memory of the device. On the CPU, and while planning, every run is the work.
class Recording {
 public:
  void run(Context& ctx, const std::function<void()>& work);

 private:
  int64_t runs_ = 0;
  std::unique_ptr<LibraryState> graph_;
};

}  // namespace keen
