// Streams, events, graphs, and what is put into them.
#include "device.h"

using namespace cuda_emulator;

namespace cuda_emulator {

namespace {

class OpenMemory {
 public:
  OpenMemory() {
    if (device().open++ == 0) set(false);
  }
  ~OpenMemory() {
    if (--device().open == 0) set(true);
  }
  OpenMemory(const OpenMemory&) = delete;

 private:
  static void set(bool closed) {
    for (const auto& [memory, allocation] : device().memory)
      if (!allocation.pinned) poison(memory, allocation.bytes, closed);
  }
};

}  // namespace

CUstream_st& stream_or_null(cudaStream_t stream) {
  return stream != nullptr ? *stream : device().null_stream;
}

void drain(CUstream_st& stream, uint64_t until) {
  if (stream.work.empty()) return;
  const OpenMemory open;
  while (!stream.work.empty() && stream.done < until) {
    const std::function<void()> work = std::move(stream.work.front());
    stream.work.pop_front();
    if (device().sticky == cudaSuccess) work();
    ++stream.done;
  }
}

void wait_for(CUstream_st& stream, uint64_t until) {
  if (stream.work.empty()) return;
  drain(stream, until);
  device().idle_waits += stream.work.empty();
}

int64_t idle_waits() {
  const Lock lock(device().mutex);
  return device().idle_waits;
}

cudaError_t put(cudaStream_t where, std::function<void()> work) {
  CUstream_st& stream = stream_or_null(where);
  if (stream.capture != nullptr) {
    stream.capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream.work.push_back(std::move(work));
  ++stream.put;
  if (environment_is("CUDA_LAUNCH_BLOCKING", "1")) drain(stream);
  return error(device().sticky);
}

bool waits_in_capture() {
  bool capturing = false;
  for (CUstream_st* stream : device().streams)
    if (stream->capture != nullptr) capturing = stream->capture->broken = true;
  return capturing;
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  const Lock lock(device().mutex);
  return put(stream, std::move(work));
}

void take_longer(double milliseconds) {
  device().ahead += std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double, std::milli>(milliseconds));
}

bool on_device(const void* address) {
  const Lock lock(device().mutex);
  return lies_in(address, 1, true);
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
  const Lock lock(device().mutex);
  if (device().sticky != cudaSuccess) return error(device().sticky);
  const dim3 grid = config.gridDim, size = config.blockDim;
  const uint64_t threads = uint64_t{size.x} * size.y * size.z;
  if (threads < 1 || threads > 1024 || size.z > 64 || grid.x < 1 || grid.y < 1 || grid.z < 1 ||
      grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    return error(cudaErrorInvalidConfiguration);
  const auto it = device().shared_bytes_of_kernel.find(kernel);
  const size_t limit =
      it == device().shared_bytes_of_kernel.end() ? kSharedBytes : std::max(kSharedBytes, it->second);
  if (config.dynamicSmemBytes > limit) return error(cudaErrorInvalidValue);
  return put(config.stream,
             [config, kernel, thread = std::move(thread)] { run_kernel(config, kernel, thread); });
}

bool can_be_read_by_kernels(const void* address, int argument) {
  const Lock lock(device().mutex);
  if (address == nullptr || allocation_of(address) != nullptr) return true;
  // One past the end is an address that empty ranges have.
  if (allocation_of(static_cast<const std::byte*>(address) - 1) != nullptr) return true;
  failed_launch("argument " + std::to_string(argument) + " of a kernel points to memory of the host");
  return false;
}

}  // namespace cuda_emulator

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  for (CUstream_st* stream : device().streams) wait_for(*stream);
  return error(device().sticky);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(device().mutex);
  *stream = new CUstream_st;
  device().streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(device().mutex);
  drain(*stream);
  std::erase(device().streams, stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (stream_or_null(stream).capture != nullptr) {
    stream_or_null(stream).capture->broken = true;
    return error(cudaErrorStreamCaptureUnsupported);
  }
  wait_for(stream_or_null(stream));
  return error(device().sticky);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(device().mutex);
  return stream_or_null(stream).work.empty() ? device().sticky : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(device().mutex);
  if (event->stream == nullptr || event->stream == &stream_or_null(stream)) return cudaSuccess;
  if (event->capture != nullptr) {  // the stream joins the capture
    stream_or_null(stream).capture = event->capture;
    return cudaSuccess;
  }
  return put(stream, [from = event->stream, after = event->after] { drain(*from, after); });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  const Lock lock(device().mutex);
  return put(stream, [=] { function(data); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(device().mutex);
  if (event->stream != nullptr && event->capture == nullptr) drain(*event->stream, event->after);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t where) {
  const Lock lock(device().mutex);
  CUstream_st& stream = stream_or_null(where);
  event->stream = &stream;
  event->capture = stream.capture;
  if (stream.capture != nullptr) return cudaSuccess;
  const cudaError_t status =
      put(where, [event] { event->reached = std::chrono::steady_clock::now() + device().ahead; });
  event->after = stream.put;
  return status;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(device().mutex);
  if (event->capture != nullptr) return error(cudaErrorStreamCaptureUnsupported);
  if (event->stream != nullptr) wait_for(*event->stream, event->after);
  return error(device().sticky);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(device().mutex);
  return event->stream == nullptr || event->stream->done >= event->after ? device().sticky
                                                                         : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  const Lock lock(device().mutex);
  if (cudaEventQuery(start) != cudaSuccess || cudaEventQuery(stop) != cudaSuccess)
    return error(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(stop->reached - start->reached).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(device().mutex);
  if (stream == nullptr || stream->capture != nullptr) return error(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(device().mutex);
  *graph = stream->capture;
  if (*graph == nullptr) return error(cudaErrorInvalidValue);
  for (CUstream_st* other : device().streams)
    if (other->capture == *graph) other->capture = nullptr;
  if (!(*graph)->broken) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return error(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const CUgraph_st* capture = stream_or_null(stream).capture;
  *status = capture == nullptr ? cudaStreamCaptureStatusNone
            : capture->broken  ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(device().mutex);
  return put(stream, [work = exec->work] {
    for (const auto& one : work)
      if (device().sticky == cudaSuccess) one();
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
