#include "comm/nccl_communicator.h"

#include <nccl.h>

#include <array>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "core/console.h"
#include "core/cuda.h"
#include "core/dynamic_library.h"
#include "core/launch.cuh"

namespace keen {

namespace {

using Clock = std::chrono::steady_clock;
using cuda::check_cuda;

constexpr auto kWatchInterval = std::chrono::milliseconds(100);

// The functions of NCCL that keen calls, from a library that is opened when several ranks want it.
struct Nccl {
  DynamicLibrary library{fmt::format("libnccl.so.{}", NCCL_MAJOR)};

  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRank) init_rank = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclReduceScatter) reduce_scatter = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;

  Nccl() {
    bind(error_string, "ncclGetErrorString");
    bind(last_error, "ncclGetLastError");
    bind(get_unique_id, "ncclGetUniqueId");
    bind(init_rank, "ncclCommInitRank");
    bind(destroy, "ncclCommDestroy");
    bind(async_error, "ncclCommGetAsyncError");
    bind(reduce_scatter, "ncclReduceScatter");
    bind(all_gather, "ncclAllGather");
    bind(all_reduce, "ncclAllReduce");
    // Threads of NCCL that listen to the network outlive its communicators.
    library.keep_open();
  }

 private:
  template <class F> void bind(F*& function, const char* symbol) const {
    library.bind(function, symbol, "a run of several ranks on CUDA");
  }
};

ncclDataType_t nccl_type(DType type) {
  switch (type) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::bf16:
      return ncclBfloat16;
    default:
      break;
  }
  check(false, "NcclCommunicator: of floating types");
  return ncclFloat32;
}

class CudaEvent {
 public:
  CudaEvent() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event"); }
  CudaEvent(CudaEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  ~CudaEvent() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }

  void record(cudaStream_t stream) {
    check_cuda(cudaEventRecord(event_, stream), "marking a place in a stream");
  }
  void make_wait(cudaStream_t stream) const {
    check_cuda(cudaStreamWaitEvent(stream, event_, 0), "making a stream wait");
  }
  // An error of the device comes up where the host waits for the step, so here it only ends the waiting.
  bool done() const { return cudaEventQuery(event_) != cudaErrorNotReady; }

 private:
  cudaEvent_t event_ = nullptr;
};

class NcclCommunicator final : public Communicator {
 public:
  explicit NcclCommunicator(std::unique_ptr<HostCommunicator> host) : host_(std::move(host)) {}
  ~NcclCommunicator() override;
  // Once, before all else.
  void connect(int local_rank);

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  void start_sum_slices(Context& ctx, Tensor flat, std::string_view what) override;
  void start_gather_slices(Context& ctx, Tensor flat, std::string_view what) override;
  void finish(Context& ctx) override;
  void sum(Context& ctx, Tensor numbers, std::string_view what) override;

  void sum(std::span<double> numbers, std::string_view what) override {
    finish_on_host();
    host_->sum(numbers, what);
  }
  void broadcast(std::string& text, std::string_view what) override {
    finish_on_host();
    host_->broadcast(text, what);
  }
  void send(int to, std::span<const std::byte> bytes, std::string_view what) override {
    finish_on_host();
    host_->send(to, bytes, what);
  }
  void receive(int from, std::span<std::byte> bytes, std::string_view what) override {
    finish_on_host();
    host_->receive(from, bytes, what);
  }

  void at_step(int64_t step) override {
    step_ = step;
    host_->at_step(step);
  }
  void works_on(std::string_view what) override { host_->works_on(what); }
  int64_t bytes_sent() const override { return host_->bytes_sent() + bytes_sent_; }
  [[noreturn]] void abort(Exit exit) override { host_->abort(exit); }

 private:
  // A collective in a stream. A rank waits for others only from where its own device has reached it.
  struct Operation {
    std::string what;
    CudaEvent begins, ends;
    std::optional<Clock::time_point> begun;
  };
  // A call of NCCL in which the host itself may wait for other ranks.
  struct Call {
    std::string what;
    Clock::time_point begun = Clock::now();
    explicit Call(std::string what) : what(std::move(what)) {}
  };

  void call(std::string_view what, const std::function<ncclResult_t()>& run);
  void put(cudaStream_t stream, std::string_view what, const std::function<ncclResult_t()>& run);
  void start(Context& ctx, std::string_view what, const std::function<ncclResult_t()>& run);
  int64_t slice_count(const Tensor& flat) const { return flat.count() / size(); }
  std::byte* own_slice(const Tensor& flat) const { return flat.data + rank() * (flat.bytes() / size()); }
  void finish_on_host() { check_cuda(cudaStreamSynchronize(stream_), "waiting for other ranks"); }
  CudaEvent take_event();

  // Of the thread that watches.
  void watch();
  std::string waits_for() const;
  std::string error_of_nccl() const;
  bool is_overdue();
  void wait_anew();

  const std::unique_ptr<HostCommunicator> host_;
  std::optional<const Nccl> nccl_;
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  std::optional<CudaEvent> order_;  // between the context's stream and ours
  std::atomic<int64_t> step_ = 0, bytes_sent_ = 0;

  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  ncclComm_t comm_ = nullptr;  // null too while it is made and destroyed
  std::deque<Operation> operations_;
  std::vector<CudaEvent> free_events_;
  std::optional<Call> call_;
  bool ends_ = false;
  std::thread watcher_;
};

// What a rank tells the others about the GPU that it takes.
struct OwnGpu {
  int32_t local_rank, gpus;
  int32_t taken;  // -1: none is left for it
  std::array<char, 16> uuid;
};

OwnGpu own_gpu(int local_rank) {
  OwnGpu own{.local_rank = local_rank, .gpus = cuda::device_count(), .taken = -1, .uuid = {}};
  if (local_rank < own.gpus)
    own.taken = local_rank;
  else if (own.gpus == 1)
    own.taken = 0;
  if (own.taken < 0) return own;
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, own.taken), "asking for the device's properties");
  std::memcpy(own.uuid.data(), properties.uuid.bytes, own.uuid.size());
  return own;
}

// Every rank finds the same error.
void check_gpus(std::span<const OwnGpu> gpus) {
  for (size_t rank = 0; rank < gpus.size(); ++rank) {
    const OwnGpu& own = gpus[rank];
    if (own.taken < 0)
      fail(Exit::device,
           "device: rank {} is number {} on its host, counted from 0, and sees {} there; start no more ranks "
           "on a host than it has GPUs, or set \"device\": \"cpu\"",
           rank, own.local_rank, counted(own.gpus, "GPU"));
    for (size_t other = 0; other < rank; ++other)
      if (gpus[other].uuid == own.uuid)
        fail(Exit::device,
             "device: ranks {} and {} have the same GPU, their number {} and {}; start no more ranks on a "
             "host than it has GPUs, or set \"device\": \"cpu\"",
             other, rank, gpus[other].taken, own.taken);
  }
}

int agree_on_gpus(Communicator& host, int local_rank) {
  constexpr std::string_view kWhat = "the GPUs of the ranks";
  const OwnGpu own = own_gpu(local_rank);
  std::vector<OwnGpu> gpus(static_cast<size_t>(host.size()), own);
  const std::span all = std::as_writable_bytes(std::span(gpus));
  if (host.rank() == 0) {
    for (int rank = 1; rank < host.size(); ++rank)
      host.receive(rank, std::as_writable_bytes(std::span(gpus).subspan(static_cast<size_t>(rank), 1)),
                   kWhat);
  } else {
    host.send(0, std::as_bytes(std::span(&own, 1)), kWhat);
  }
  std::string text(reinterpret_cast<const char*>(all.data()), all.size());
  host.broadcast(text, kWhat);
  std::memcpy(all.data(), text.data(), all.size());
  check_gpus(gpus);
  return own.taken;
}

void NcclCommunicator::connect(int local_rank) {
  device_ = agree_on_gpus(*host_, local_rank);
  check_cuda(cudaSetDevice(device_), "choosing a GPU");
  nccl_.emplace();
  // Communication goes first: what it waits for is less than what waits for it.
  int least = 0, greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities of streams");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "making a stream");
  order_.emplace();
  watcher_ = std::thread([this] { watch(); });

  ncclUniqueId id{};
  if (rank() == 0) call("the address of NCCL", [&] { return nccl_->get_unique_id(&id); });
  std::string text(id.internal, sizeof id.internal);
  host_->broadcast(text, "the address of NCCL");
  std::memcpy(id.internal, text.data(), sizeof id.internal);
  ncclComm_t comm = nullptr;
  call("the connections of NCCL", [&] { return nccl_->init_rank(&comm, size(), id, rank()); });
  const std::lock_guard lock(mutex_);
  comm_ = comm;
}

NcclCommunicator::~NcclCommunicator() {
  if (watcher_.joinable()) {
    ncclComm_t comm = nullptr;
    {
      const std::lock_guard lock(mutex_);
      comm = std::exchange(comm_, nullptr);
      call_.emplace("the end of NCCL");
    }
    if (comm != nullptr) nccl_->destroy(comm);
    {
      const std::lock_guard lock(mutex_);
      call_.reset();
      ends_ = true;
    }
    changed_.notify_all();
    watcher_.join();
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void NcclCommunicator::start_sum_slices(Context& ctx, Tensor flat, std::string_view what) {
  check(flat.count() % size() == 0, "start_sum_slices: equal slices");
  if (ctx.planning) return;
  start(ctx, what, [&] {
    return nccl_->reduce_scatter(flat.data, own_slice(flat), static_cast<size_t>(slice_count(flat)),
                                 nccl_type(flat.dtype), ncclSum, comm_, stream_);
  });
  bytes_sent_ += flat.bytes() / size() * (size() - 1);
}

void NcclCommunicator::start_gather_slices(Context& ctx, Tensor flat, std::string_view what) {
  check(flat.count() % size() == 0, "start_gather_slices: equal slices");
  if (ctx.planning) return;
  start(ctx, what, [&] {
    return nccl_->all_gather(own_slice(flat), flat.data, static_cast<size_t>(slice_count(flat)),
                             nccl_type(flat.dtype), comm_, stream_);
  });
  bytes_sent_ += flat.bytes() / size() * (size() - 1);
}

void NcclCommunicator::finish(Context& ctx) {
  if (ctx.planning) return;
  order_->record(stream_);
  order_->make_wait(cuda::stream_of(ctx));
}

void NcclCommunicator::sum(Context& ctx, Tensor numbers, std::string_view what) {
  check(numbers.dtype == DType::f64, "sum: of float64");
  if (ctx.planning) return;
  finish(ctx);
  const cudaStream_t stream = cuda::stream_of(ctx);
  put(stream, what, [&] {
    return nccl_->all_reduce(numbers.data, numbers.data, static_cast<size_t>(numbers.count()), ncclFloat64,
                             ncclSum, comm_, stream);
  });
  bytes_sent_ += 2 * numbers.bytes() * (size() - 1) / size();
}

// A collective in our stream, behind everything that is in the context's.
void NcclCommunicator::start(Context& ctx, std::string_view what, const std::function<ncclResult_t()>& run) {
  order_->record(cuda::stream_of(ctx));
  order_->make_wait(stream_);
  put(stream_, what, run);
}

void NcclCommunicator::put(cudaStream_t stream, std::string_view what,
                           const std::function<ncclResult_t()>& run) {
  Operation operation{.what = std::string(what), .begins = take_event(), .ends = take_event(), .begun = {}};
  operation.begins.record(stream);
  call(what, run);
  operation.ends.record(stream);
  const std::lock_guard lock(mutex_);
  operations_.push_back(std::move(operation));
}

void NcclCommunicator::call(std::string_view what, const std::function<ncclResult_t()>& run) {
  {
    const std::lock_guard lock(mutex_);
    call_.emplace(std::string(what));
  }
  const ncclResult_t result = run();
  {
    const std::lock_guard lock(mutex_);
    call_.reset();
  }
  if (result == ncclSuccess) return;
  fail(result == ncclUnhandledCudaError ? Exit::device : Exit::communication,
       "NCCL: {}: {} ({}); with NCCL_DEBUG=WARN in the environment it says more", what,
       nccl_->error_string(result), nccl_->last_error(nullptr));
}

CudaEvent NcclCommunicator::take_event() {
  const std::lock_guard lock(mutex_);
  if (free_events_.empty()) return {};
  CudaEvent event = std::move(free_events_.back());
  free_events_.pop_back();
  return event;
}

void NcclCommunicator::watch() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kWatchInterval, [this] { return ends_; })) {
    const std::string error = error_of_nccl();
    const bool overdue = is_overdue();
    if (error.empty() && !overdue) continue;
    const std::string what = waits_for();
    lock.unlock();
    if (error.empty()) {
      host_->ask_or_give_up(what, [this] {
        const std::lock_guard asking(mutex_);
        return !is_overdue();
      });
      lock.lock();
      wait_anew();
      continue;
    }
    write_err(fmt::format("{}keen: rank {}: step {}: {}: {}\n", clear_line(stderr), rank(), step_.load(),
                          what, error));
    host_->abort(Exit::communication);
  }
}

std::string NcclCommunicator::waits_for() const {
  if (!operations_.empty()) return operations_.front().what;
  return call_ ? call_->what : "NCCL";
}

std::string NcclCommunicator::error_of_nccl() const {
  ncclResult_t error = ncclSuccess;
  if (comm_ == nullptr || nccl_->async_error(comm_, &error) != ncclSuccess) return {};
  if (error == ncclSuccess || error == ncclInProgress) return {};
  return fmt::format("NCCL: {} ({})", nccl_->error_string(error), nccl_->last_error(nullptr));
}

// Here, or in the thread of the host's communicator.
bool NcclCommunicator::is_overdue() {
  cudaSetDevice(device_);  // or asking for an event would wake up GPU 0
  const Clock::time_point now = Clock::now();
  const auto too_long = [&](Clock::time_point begun) {
    return std::chrono::duration<double>(now - begun).count() > host_->limit_s();
  };
  while (!operations_.empty() && operations_.front().ends.done()) {
    free_events_.push_back(std::move(operations_.front().begins));
    free_events_.push_back(std::move(operations_.front().ends));
    operations_.pop_front();
  }
  if (call_ && too_long(call_->begun)) return true;
  if (operations_.empty()) return false;
  Operation& next = operations_.front();
  if (!next.begun && next.begins.done()) next.begun = now;
  return next.begun && too_long(*next.begun);
}

void NcclCommunicator::wait_anew() {
  const Clock::time_point now = Clock::now();
  if (call_) call_->begun = now;
  if (!operations_.empty() && operations_.front().begun) operations_.front().begun = now;
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<HostCommunicator> host, int local_rank) {
  auto comm = std::make_unique<NcclCommunicator>(std::move(host));
  try {
    comm->connect(local_rank);
  } catch (const Error& error) {
    if (comm->size() > 1) end_all_ranks(*comm, error.exit, error.what());
    throw;
  }
  return comm;
}

}  // namespace keen
