#include "comm/tcp_door.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace keen::tcp {

namespace {

constexpr size_t kHelloBegin = sizeof(uint64_t) + sizeof(uint32_t);  // magic and version

}  // namespace

bool reply(const Socket& socket, Reply::Kind kind, std::span<const std::byte> content, uint64_t session,
           Time until) {
  Reply head;
  head.kind = kind;
  head.session = session;
  head.length = content.size();
  return send_all(socket, bytes_of(head), until) == Moved::all &&
         send_all(socket, content, until) == Moved::all;
}

void refuse(const Socket& socket, std::string_view why, Exit exit) {
  reply(socket, Reply::Kind::refusal, std::as_bytes(std::span(why)), static_cast<uint64_t>(exit),
        seconds_from_now(1));
}

std::vector<Caller> Door::wait(Time until, const std::vector<Socket>& watched) {
  std::vector<pollfd> wanted{{listener_.descriptor(), POLLIN, 0}};
  for (const Caller& caller : callers_) {
    wanted.push_back({caller.socket.descriptor(), POLLIN, 0});
    until = std::min(until, caller.until);
  }
  for (const Socket& socket : watched)
    if (socket) wanted.push_back({socket.descriptor(), POLLIN, 0});
  ::poll(wanted.data(), wanted.size(), milliseconds_until(until));
  for (Socket socket = accept_from(listener_); socket; socket = accept_from(listener_))
    if (!this_host_only_ || Address::there(socket).is_loopback())
      callers_.push_back({std::move(socket), {}, 0});
  std::vector<Caller> known;
  std::vector<Caller> unknown;
  for (Caller& caller : callers_)
    if (listen_to(caller)) (caller.is_known() ? known : unknown).push_back(std::move(caller));
  callers_ = std::move(unknown);
  return known;
}

// False when the caller has gone, is none of ours, or takes too long.
bool Door::listen_to(Caller& caller) {
  const auto rest = writable_bytes_of(caller.hello).subspan(caller.heard);
  const ssize_t got = ::recv(caller.socket.descriptor(), rest.data(), rest.size(), 0);
  if (got == 0 || (got < 0 && !is_for_later(errno))) return false;
  if (got > 0) caller.heard += static_cast<size_t>(got);
  if (caller.heard < kHelloBegin) return Clock::now() < caller.until;
  if (caller.hello.magic != kMagic) return false;
  if (caller.hello.version != kVersion) {
    refuse(caller.socket, fmt::format("rank 0 speaks version {} of the protocol between ranks and this rank "
                                      "version {}: start the same build of keen everywhere",
                                      kVersion, caller.hello.version));
    return false;
  }
  caller.hello.job.back() = '\0';
  return caller.is_known() || Clock::now() < caller.until;
}

}  // namespace keen::tcp
