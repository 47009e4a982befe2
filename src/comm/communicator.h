// How the ranks of a run speak to each other: one process a rank, each with a part of the global batch. The
// one virtual class, with a handful of calls a step; a run of one rank needs none of it.
//
// What is added or gathered is a flat array cut into `size()` equal slices, of which slice r belongs to rank
// r. The ring of sums and gathers moves the least that is possible: n (R - 1) / R elements from each rank for
// each of them (Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations",
// 2009).
//
// Every rank makes the same calls in the same order. A rank on which something fails must `abort`: the others
// wait for it, and give up only after the time that they were made with.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/context.h"

namespace keen {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Both begin and return while they go on, one after the other in the order of the calls; `flat` (n), n a
  // multiple of size(), may not be touched before `finish`. `what` says in messages what is waited for.
  //
  // Adds over ranks in a fixed order: slice rank() holds the sum then, and the other slices nothing of use.
  virtual void start_sum_slices(Context& ctx, Tensor flat, std::string_view what) = 0;
  // Gives slice rank() to all others: `flat` is the same on every rank then.
  virtual void start_gather_slices(Context& ctx, Tensor flat, std::string_view what) = 0;
  // Everything begun is done, for what the context's stream does next.
  virtual void finish(Context& ctx) = 0;

  // Adds a few numbers, float64, in place and in a fixed order: every rank has the same bits afterwards.
  // Finishes what was begun.
  virtual void sum(Context& ctx, Tensor numbers, std::string_view what) = 0;

  // Of host memory, finishing what was begun: the sum as above; rank 0's text for everybody; bytes from one
  // rank to another, where the one sends and the other receives as many.
  virtual void sum(std::span<double> numbers, std::string_view what) = 0;
  virtual void broadcast(std::string& text, std::string_view what) = 0;
  virtual void send(int to, std::span<const std::byte> bytes, std::string_view what) = 0;
  virtual void receive(int from, std::span<std::byte> bytes, std::string_view what) = 0;

  // Tells in which step this rank is, for messages about a rank that does not come.
  virtual void at_step(int64_t step) = 0;
  // Tells what rank 0 works on that may take any time; empty: nothing any more. See LongWork.
  virtual void works_on(std::string_view what) = 0;
  // Bytes that this rank has sent to others.
  virtual int64_t bytes_sent() const = 0;
  // Ends every rank of the run, this one with the exit code given. What is to be said must have been said.
  [[noreturn]] virtual void abort(Exit exit) = 0;
};

// While it is there, rank 0 may take any time, as a save to a slow disk does: whoever waits for it goes on
// waiting as long as every rank says, when asked, that it is alive. What rank 0 itself waits for meanwhile is
// limited as ever. For rank 0 alone, or two could excuse each other for ever.
class LongWork {
 public:
  LongWork(Communicator& comm, std::string_view what) : comm_(comm) { comm_.works_on(what); }
  LongWork(const LongWork&) = delete;
  ~LongWork() { comm_.works_on({}); }

 private:
  Communicator& comm_;
};

// An error of one rank is the end of all: prints it and aborts, and does not return. Where all have the same
// one, as with a config that none can run, rank 0 says it and ends the others before they do.
void end_all_ranks(Communicator& comm, Exit exit, const char* message);

// Which rank of how many this process was started as, by mpirun, srun, or a launcher that sets RANK,
// WORLD_SIZE, MASTER_ADDR and MASTER_PORT; asked of the environment alone.
struct Launch {
  enum class By : uint8_t { nobody, mpi, environment } by = By::nobody;
  int rank = 0, size = 1;
  int local_rank = 0;  // among the ranks of this host: which of its GPUs to use
};
// Raises Exit::communication where the environment contradicts itself.
Launch launch_of_environment();

// Of a process that is on its own, however it was started.
std::unique_ptr<Communicator> make_one_rank();
// Connects the ranks of the launch; of one rank, nothing is connected. `device` is where tensors will lie: on
// CUDA they are added by NCCL, and this rank's GPU becomes the current one of the thread that calls. A rank
// that waits for longer than `timeout_s` for another one ends the run with exit code 7 and says which rank
// does not answer. Raises Exit::communication when this build has no backend for the launch, or a rank cannot
// be reached, and Exit::stopped when this process or one that it knows of was `stopped` before all were
// connected; where that cannot be had, as within MPI_Init, it says so and ends this process itself.
std::unique_ptr<Communicator> make_communicator(Device device, double timeout_s,
                                                const std::function<bool()>& stopped = {});

}  // namespace keen
