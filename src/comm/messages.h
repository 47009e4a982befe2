// The ways of bytes between ranks that HostCommunicator builds on: MPI, or TCP where a launcher sets RANK,
// WORLD_SIZE, MASTER_ADDR and MASTER_PORT. All calls come from one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace keen {

// A few words between ranks beside the data: "where are you?", and the answer.
struct Note {
  enum class Kind : int32_t { question, answer } kind = Kind::question;
  int32_t from = 0;
  int64_t step = 0;
  // What the sender does; to work is to do something that may take any time.
  enum class Doing : int32_t { computing, waiting, working } doing = Doing::computing;
  std::array<char, 76> what{};  // it waits for, or works on; zero-terminated
};

class Messages {
 public:
  virtual ~Messages() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Begin and return; the bytes may not be touched until `poll` has said true. Messages from one rank to
  // another arrive in the order in which they were begun, and lengths agree on both sides. Any length.
  virtual void start_send(int to, std::span<const std::byte> bytes) = 0;
  virtual void start_receive(int from, std::span<std::byte> bytes) = 0;
  // Moves what was begun as far as it goes without waiting; true when all of it is done. Raises
  // Exit::communication, naming the rank, when the way to one is lost.
  virtual bool poll() = 0;

  // Never waits, and may be called at any time; a note to a rank that does not listen is lost.
  virtual void send_note(int to, const Note& note) = 0;
  // The next note that has come.
  virtual std::optional<Note> next_note() = 0;

  // Ends this process with the exit code, and all other ranks as far as they can be reached.
  [[noreturn]] virtual void abort(int exit) = 0;
};

// The rank of an MPI launch: MPI_Init here, MPI_Finalize when it is destroyed, by the same thread.
std::unique_ptr<Messages> connect_mpi();

// Where a rank stands in a TCP launch.
struct TcpPlace {
  int rank = 0, size = 1;
  std::string address;  // of rank 0: a name, or an address of IPv4 or IPv6
  int port = 0;         // at which rank 0 listens
  std::string job;      // what the launcher calls this run, where it says so: runs that differ do not mix
};
// From RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, the job from TORCHELASTIC_RUN_ID or SLURM_JOB_ID.
// Raises Exit::communication naming the variable and its value. torchrun may keep MASTER_PORT for itself and
// says so (TORCHELASTIC_USE_AGENT_STORE): the port after it is taken then.
TcpPlace tcp_place_of_environment();
// Whether this process was asked to stop; empty: nobody asks.
using Stopped = std::function<bool()>;
// What becomes of a rank that was.
inline constexpr std::string_view kStoppedWhileConnecting =
    "stopped by a signal while the ranks connected; there was nothing to save";
// Connects the ranks of a launch with each other: rank 0 listens at the port, and tells everybody where the
// others are. Raises Exit::communication when they have not all come within `timeout_s`, naming those that
// have not, or when two say that they are the same one; Exit::stopped when one of them is `stopped` first.
std::unique_ptr<Messages> connect_tcp(const TcpPlace& place, double timeout_s, const Stopped& stopped = {});
// At the place of the environment.
std::unique_ptr<Messages> connect_tcp(double timeout_s, const Stopped& stopped);

}  // namespace keen
