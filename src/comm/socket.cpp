#include "comm/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>

namespace keen {

namespace {

const sockaddr_in& ipv4(const sockaddr_storage& storage) {
  return reinterpret_cast<const sockaddr_in&>(storage);
}
sockaddr_in& ipv4(sockaddr_storage& storage) { return reinterpret_cast<sockaddr_in&>(storage); }
const sockaddr_in6& ipv6(const sockaddr_storage& storage) {
  return reinterpret_cast<const sockaddr_in6&>(storage);
}
sockaddr_in6& ipv6(sockaddr_storage& storage) { return reinterpret_cast<sockaddr_in6&>(storage); }

void set_option(const Socket& socket, int level, int name, int value) {
  // A system that does not know one of these still carries the bytes.
  setsockopt(socket.descriptor(), level, name, &value, sizeof value);
}

// A host that loses its power says nothing: two minutes of silence from its kernel end a connection. (A
// process that is stopped or computes is none of that: its kernel answers.)
void set_connection_options(const Socket& socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 6);
}

// False at `until`.
bool wait_for(const Socket& socket, short events, Time until) {
  for (;;) {
    pollfd wanted{socket.descriptor(), events, 0};
    if (::poll(&wanted, 1, milliseconds_until(until)) > 0) return true;
    if (Clock::now() >= until) return false;
  }
}

bool is_out_of_descriptors(int error) { return error == EMFILE || error == ENFILE; }

[[noreturn]] void fail_for_want_of_descriptors() {
  fail(
      Exit::communication,
      "too many open files: each rank needs two connections to every other one; raise the limit (ulimit -n)");
}

Socket try_to_listen(int family, int port, int& error) {
  Socket socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  error = errno;
  if (!socket) return socket;
  set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  sockaddr_storage storage{};
  storage.ss_family = static_cast<sa_family_t>(family);
  socklen_t length = sizeof(sockaddr_in);
  if (family == AF_INET6) {
    set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    length = sizeof(sockaddr_in6);
    ipv6(storage).sin6_port = htons(static_cast<uint16_t>(port));
  } else {
    ipv4(storage).sin_port = htons(static_cast<uint16_t>(port));
  }
  if (::bind(socket.descriptor(), reinterpret_cast<sockaddr*>(&storage), length) == 0 &&
      ::listen(socket.descriptor(), SOMAXCONN) == 0)
    return socket;
  error = errno;
  return {};
}

}  // namespace

Time seconds_from_now(double seconds) {
  constexpr double kHundredYears = 3e9;  // what the clock can still count
  const double bounded = std::isnan(seconds) ? 0 : std::clamp(seconds, 0.0, kHundredYears);
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(bounded));
}

int milliseconds_until(Time time) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(time - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

void Socket::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

Address::Address(const sockaddr_storage& storage, socklen_t length) : storage_(storage), length_(length) {
  if (family() != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&ipv6(storage_).sin6_addr)) return;
  Wire plain;
  plain.port = ntohs(ipv6(storage_).sin6_port);
  std::copy_n(&ipv6(storage_).sin6_addr.s6_addr[12], 4, plain.bytes.begin());
  *this = Address(plain);
}

Address::Address(const Wire& wire) {
  if (wire.is_ipv6 != 0) {
    storage_.ss_family = AF_INET6;
    length_ = sizeof(sockaddr_in6);
    std::copy_n(wire.bytes.begin(), 16, ipv6(storage_).sin6_addr.s6_addr);
  } else {
    storage_.ss_family = AF_INET;
    length_ = sizeof(sockaddr_in);
    std::memcpy(&ipv4(storage_).sin_addr, wire.bytes.data(), 4);
  }
  set_port(wire.port);
}

Address Address::here(const Socket& socket) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return {storage, length};
}

Address Address::there(const Socket& socket) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return {storage, length};
}

Address::Wire Address::wire() const {
  Wire wire;
  wire.port = static_cast<uint16_t>(port());
  wire.is_ipv6 = family() == AF_INET6;
  if (family() == AF_INET6)
    std::copy_n(ipv6(storage_).sin6_addr.s6_addr, 16, wire.bytes.begin());
  else
    std::memcpy(wire.bytes.data(), &ipv4(storage_).sin_addr, 4);
  return wire;
}

// The port lies at the same place in both families.
int Address::port() const { return ntohs(ipv4(storage_).sin_port); }
void Address::set_port(int port) { ipv4(storage_).sin_port = htons(static_cast<uint16_t>(port)); }

bool Address::is_loopback() const {
  if (family() == AF_INET) return ntohl(ipv4(storage_).sin_addr.s_addr) >> 24 == 127;
  return family() == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&ipv6(storage_).sin6_addr);
}

void Address::take_scope_of(const Address& other) {
  if (family() == AF_INET6 && other.family() == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&ipv6(storage_).sin6_addr))
    ipv6(storage_).sin6_scope_id = ipv6(other.storage_).sin6_scope_id;
}

std::string Address::host() const {
  char text[INET6_ADDRSTRLEN] = "unknown";
  if (family() == AF_INET)
    inet_ntop(AF_INET, &ipv4(storage_).sin_addr, text, sizeof text);
  else if (family() == AF_INET6)
    inet_ntop(AF_INET6, &ipv6(storage_).sin6_addr, text, sizeof text);
  return text;
}

std::string Address::str() const {
  return family() == AF_INET6 ? fmt::format("[{}]:{}", host(), port()) : fmt::format("{}:{}", host(), port());
}

bool Address::operator==(const Address& other) const {
  const Wire a = wire(), b = other.wire();
  return family() == other.family() && a.port == b.port && a.bytes == b.bytes;
}

std::vector<Address> resolve(const std::string& host, int port, std::string& why_not) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error != 0) {
    why_not = error == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(error);
    return {};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  std::vector<Address> found;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    sockaddr_storage storage{};
    std::memcpy(&storage, entry->ai_addr, entry->ai_addrlen);
    found.emplace_back(storage, entry->ai_addrlen);
  }
  return found;
}

Socket listen_at(int port) {
  int error = 0;
  Socket socket = try_to_listen(AF_INET6, port, error);
  // A kernel without IPv6, or with it turned off, still has IPv4.
  if (!socket && (error == EAFNOSUPPORT || error == EADDRNOTAVAIL))
    socket = try_to_listen(AF_INET, port, error);
  if (socket) return socket;
  if (is_out_of_descriptors(error)) fail_for_want_of_descriptors();
  fail(Exit::communication, "cannot listen at port {}: {}", port, std::strerror(error));
}

Socket accept_from(const Socket& listener) {
  Socket socket(::accept4(listener.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket) set_connection_options(socket);
  // Any other error is that of somebody who has left while standing in the queue.
  if (!socket && is_out_of_descriptors(errno)) fail_for_want_of_descriptors();
  return socket;
}

Socket connect_to(const Address& address, Time until, std::string& why_not,
                  const std::function<Time(Time)>& soon) {
  Socket socket(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket && is_out_of_descriptors(errno)) fail_for_want_of_descriptors();
  if (!socket) return why_not = std::strerror(errno), Socket();
  set_connection_options(socket);
  // Should this end be given the port at which a rank is still to listen, that rank may listen all the same.
  set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  if (::connect(socket.descriptor(), address.data(), address.length()) != 0) {
    if (errno != EINPROGRESS && errno != EINTR) return why_not = std::strerror(errno), Socket();
    while (!wait_for(socket, POLLOUT, soon ? soon(until) : until))
      if (Clock::now() >= until) return why_not = "no answer", Socket();
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return why_not = std::strerror(error), Socket();
  }
  // To a port of this host at which nobody listens, TCP may connect a socket with itself.
  if (Address::here(socket) == Address::there(socket)) return why_not = "nobody listens there", Socket();
  return socket;
}

Moved send_all(const Socket& socket, std::span<const std::byte> bytes, Time until) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.descriptor(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0)
      bytes = bytes.subspan(static_cast<size_t>(sent));
    else if (!is_for_later(errno))
      return Moved::closed;
    else if (!wait_for(socket, POLLOUT, until))
      return Moved::too_late;
  }
  return Moved::all;
}

Moved receive_all(const Socket& socket, std::span<std::byte> bytes, Time until) {
  while (!bytes.empty()) {
    const ssize_t got = ::recv(socket.descriptor(), bytes.data(), bytes.size(), 0);
    if (got > 0)
      bytes = bytes.subspan(static_cast<size_t>(got));
    else if (got == 0 || !is_for_later(errno))
      return Moved::closed;
    else if (!wait_for(socket, POLLIN, until))
      return Moved::too_late;
  }
  return Moved::all;
}

bool wait_for_bytes(const Socket& socket, Time until) { return wait_for(socket, POLLIN, until); }

bool is_closed(const Socket& socket) {
  std::byte first;
  const ssize_t got = ::recv(socket.descriptor(), &first, 1, MSG_PEEK);
  return got == 0 || (got < 0 && !is_for_later(errno));
}

bool is_for_later(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace keen
