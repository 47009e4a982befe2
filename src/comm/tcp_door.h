// What ranks that connect over TCP say to each other, and the door at which a rank hears who calls it. See
// tcp_mesh.h for what they do with it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "comm/socket.h"

namespace keen::tcp {

constexpr uint64_t kMagic = 0x736b6e61726e6b6b;  // "kknranks"
constexpr uint32_t kVersion = 2;                 // of this protocol, and of Note
constexpr double kHelloTime_s = 10;              // a caller who has not said who he is by then is shown out

enum class Purpose : uint32_t { join, data, notes };

// What a caller says first. Magic and version stay where they are in all versions.
struct Hello {
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  Purpose purpose = Purpose::join;
  int32_t rank = 0, size = 0;
  uint64_t session = 0;        // of data and notes: what rank 0 said to all ranks of this run
  int32_t port = 0;            // of join: where this rank listens
  std::array<char, 68> job{};  // zero-terminated
};

// What rank 0 and another rank say to each other after that; `length` bytes follow.
struct Reply {
  enum class Kind : uint32_t { table, refusal, ready, go };
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  Kind kind = Kind::table;
  uint64_t session = 0;  // of a refusal: its exit code
  uint64_t length = 0;
};

// False when the other side has gone.
bool reply(const Socket& socket, Reply::Kind kind, std::span<const std::byte> content, uint64_t session,
           Time until);
void refuse(const Socket& socket, std::string_view why, Exit exit = Exit::communication);

struct Caller {
  Socket socket;
  Hello hello;
  size_t heard = 0;  // bytes of it
  Time until = seconds_from_now(kHelloTime_s);
  bool is_known() const { return heard == sizeof hello; }
};

// A listener, and those who have called it but not yet said who they are. Nobody is waited for alone.
class Door {
 public:
  // At a port, or 0: any. With `this_host_only` who calls from elsewhere is shown out.
  Door(int port, bool this_host_only) : listener_(listen_at(port)), this_host_only_(this_host_only) {}
  int port() const { return Address::here(listener_).port(); }

  // Those who have said who they are; none at `until`, or as soon as something comes at one of `watched`.
  std::vector<Caller> wait(Time until, const std::vector<Socket>& watched);

 private:
  static bool listen_to(Caller& caller);

  Socket listener_;
  bool this_host_only_;
  std::vector<Caller> callers_;
};

}  // namespace keen::tcp
