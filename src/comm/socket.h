// TCP sockets as the ranks of a run need them: owned, non-blocking, without delay, kept alive, closed in
// children, never raising SIGPIPE; and the few calls that wait, each until a point in time.
#pragma once

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"

namespace keen {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
// This many seconds from now; a hundred years at most.
Time seconds_from_now(double seconds);
// How long `poll` may wait until then: milliseconds, rounded up, from 0 to an hour.
int milliseconds_until(Time time);

// Bytes of a plain struct, as they go over the wire. All hosts of a run have the same byte order: tensors
// travel as they lie in memory, too.
template <class T> std::span<const std::byte> bytes_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span(&value, 1));
}
template <class T> std::span<std::byte> writable_bytes_of(T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_writable_bytes(std::span(&value, 1));
}

class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Socket() { close(); }

  explicit operator bool() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  void close();

 private:
  int descriptor_ = -1;
};

// An IPv4 or IPv6 address and a port. IPv4 addresses mapped into IPv6 become plain IPv4.
class Address {
 public:
  // As it travels: the bytes of an IPv4 address come first, and 12 zeros follow.
  struct Wire {
    uint8_t is_ipv6 = 0, unused = 0;
    uint16_t port = 0;
    std::array<uint8_t, 16> bytes{};
  };

  Address() = default;
  Address(const sockaddr_storage& storage, socklen_t length);
  explicit Address(const Wire& wire);
  // Both ends of a connection; an address without a family where it is gone already.
  static Address here(const Socket& socket);
  static Address there(const Socket& socket);

  Wire wire() const;
  int port() const;
  void set_port(int port);
  bool is_loopback() const;
  // A link-local address of IPv6 means something on one interface only: on that of `other`.
  void take_scope_of(const Address& other);
  std::string host() const;  // "10.0.0.2", "fe80::1"
  std::string str() const;   // "10.0.0.2:29500", "[fe80::1]:29500"
  bool operator==(const Address& other) const;

  const sockaddr* data() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t length() const { return length_; }
  int family() const { return storage_.ss_family; }

 private:
  sockaddr_storage storage_{};
  socklen_t length_ = 0;
};

// The addresses of a name or of an address in digits; none, and why, when there are none (yet).
std::vector<Address> resolve(const std::string& host, int port, std::string& why_not);

// Listens at a port of all of this host's addresses, IPv6 where there is any; 0 takes a free one. Raises
// Exit::communication.
Socket listen_at(int port);
// The next one who has come, or no socket when nobody has. Raises Exit::communication when there are too many
// open files.
Socket accept_from(const Socket& listener);
// Connects, or gives up at `until`: no socket then, and why. Where there is `soon`, it is asked again and
// again until when to wait at most before it is asked once more, and may raise.
Socket connect_to(const Address& address, Time until, std::string& why_not,
                  const std::function<Time(Time)>& soon = {});

enum class Moved : uint8_t { all, closed, too_late };
// Wait until all bytes have moved, the other side has closed, or it is too late.
Moved send_all(const Socket& socket, std::span<const std::byte> bytes, Time until);
Moved receive_all(const Socket& socket, std::span<std::byte> bytes, Time until);
// Waits until there is something to receive, or the other side has closed; false at `until`.
bool wait_for_bytes(const Socket& socket, Time until);
// Whether the other side has closed, without taking bytes that have come.
bool is_closed(const Socket& socket);

// Tests one result of a call that does not wait: true when it only found nothing to do for now.
bool is_for_later(int error);

}  // namespace keen
