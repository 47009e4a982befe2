// The time that work on the device takes, by its own clock.
#pragma once

#include "core/launch.cuh"

namespace keen::cuda {

class Timer {
 public:
  explicit Timer(Context& ctx) : stream_(stream_of(ctx)) {
    check_cuda(cudaEventCreate(&begin_), "making an event");
    check_cuda(cudaEventCreate(&end_), "making an event");
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void start() { check_cuda(cudaEventRecord(begin_, stream_), "timing"); }
  // Milliseconds from `start` to the end of what was put into the stream since; waits for it.
  double stop_ms() {
    check_cuda(cudaEventRecord(end_, stream_), "timing");
    check_cuda(cudaEventSynchronize(end_), "timing");
    float ms = 0;
    check_cuda(cudaEventElapsedTime(&ms, begin_, end_), "timing");
    return static_cast<double>(ms);
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace keen::cuda
