#include "comm/communicator.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "comm/host_communicator.h"
#include "comm/nccl_communicator.h"
#include "core/console.h"

namespace keen {

namespace {

// Nothing is to be added or told.
class OneRank final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void start_sum_slices(Context&, Tensor, std::string_view) override {}
  void start_gather_slices(Context&, Tensor, std::string_view) override {}
  void finish(Context&) override {}
  void sum(Context&, Tensor, std::string_view) override {}
  void sum(std::span<double>, std::string_view) override {}
  void broadcast(std::string&, std::string_view) override {}
  void send(int, std::span<const std::byte>, std::string_view) override { refuse(); }
  void receive(int, std::span<std::byte>, std::string_view) override { refuse(); }
  void at_step(int64_t) override {}
  void works_on(std::string_view) override {}
  int64_t bytes_sent() const override { return 0; }
  void abort(Exit exit) override { std::_Exit(static_cast<int>(exit)); }

 private:
  static void refuse() { check(false, "Communicator: there is one rank only"); }
};

// The number in a variable of the environment; `absent` where it is not set.
int number_of(const char* name, int absent) {
  const char* text = std::getenv(name);
  if (text == nullptr) return absent;
  int number = 0;
  const char* end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, number);
  if (error != std::errc() || stopped != end || number < 0)
    fail(Exit::communication, "{}={}: a number from 0 on was expected", name, text);
  return number;
}

// The variables by which a launcher tells a process its place.
struct Names {
  Launch::By by;
  const char *size, *rank, *local_rank;
};
// SLURM_NTASKS alone is also set in an allocation's shell; SLURM_STEP_NUM_TASKS is set by srun only.
constexpr Names kNames[] = {
    {Launch::By::mpi, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {Launch::By::environment, "WORLD_SIZE", "RANK", "LOCAL_RANK"},
    {Launch::By::mpi, "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"},
    {Launch::By::mpi, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"},
};

// An MPI library that does not understand the launcher makes each process the only rank of a run of its own.
void check_launch(const Communicator& comm, const Launch& launch) {
  if (comm.size() != launch.size || comm.rank() != launch.rank)
    fail(
        Exit::communication,
        "the launcher started rank {} of {}, but to the MPI library this is rank {} of {}; start keen by the "
        "mpirun of that library, or over TCP by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as "
        "scripts/train.slurm does",
        launch.rank, launch.size, comm.rank(), comm.size());
}

// By NCCL where tensors lie on CUDA. Ranks that see a GPU beside ranks that see none would not meet.
std::unique_ptr<Communicator> with_device(std::unique_ptr<HostCommunicator> host, Device device,
                                          int local_rank) {
  if constexpr (kNcclBuilt) {
    double on_cuda = device == Device::cuda ? 1 : 0;
    host->sum(std::span(&on_cuda, 1), "the devices of the ranks");
    if (on_cuda == host->size()) return make_nccl_communicator(std::move(host), local_rank);
    if (on_cuda > 0)
      end_all_ranks(*host, Exit::device,
                    fmt::format("device: {} of {} ranks have a CUDA device; set \"device\": \"cpu\", or see "
                                "why nvidia-smi shows none where the others run",
                                on_cuda, host->size())
                        .c_str());
  }
  return host;
}

}  // namespace

void end_all_ranks(Communicator& comm, Exit exit, const char* message) {
  if (comm.rank() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  write_err(fmt::format("{}keen: rank {}: error: {}\n", clear_line(stderr), comm.rank(), message));
  comm.abort(exit);
}

Launch launch_of_environment() {
  for (const Names& names : kNames) {
    Launch launch{.by = names.by, .size = number_of(names.size, 0)};
    if (launch.size <= 1) continue;
    launch.rank = number_of(names.rank, -1);
    launch.local_rank = number_of(names.local_rank, launch.rank);
    if (launch.rank < 0 || launch.rank >= launch.size)
      fail(Exit::communication, "{}={}, but {} is {}; start keen by mpirun or srun, or unset both",
           names.size, launch.size, names.rank, launch.rank < 0 ? "not set" : "not below it");
    return launch;
  }
  return {};
}

std::unique_ptr<Communicator> make_one_rank() { return std::make_unique<OneRank>(); }

std::unique_ptr<Communicator> make_communicator(Device device, double timeout_s,
                                                const std::function<bool()>& stopped) {
  const Launch launch = launch_of_environment();
  if (launch.size == 1) return std::make_unique<OneRank>();
  std::function<std::unique_ptr<Messages>()> connect = [&] { return connect_tcp(timeout_s, stopped); };
  if (launch.by == Launch::By::mpi) {
    if constexpr (kMpiBuilt)
      connect = connect_mpi;
    else
      fail(Exit::communication,
           "this process is one of {} ranks of MPI, but this build of keen has no MPI; build it where an MPI "
           "library is found, or start one process without the launcher",
           launch.size);
  }
  if (device == Device::cuda && !kNcclBuilt)
    fail(
        Exit::communication,
        "several ranks on CUDA need NCCL, which this build of keen lacks; build it where nccl.h is found, or "
        "set \"device\": \"cpu\"");
  auto host = std::make_unique<HostCommunicator>(connect, timeout_s, stopped);
  check_launch(*host, launch);
  return with_device(std::move(host), device, launch.local_rank);
}

}  // namespace keen
