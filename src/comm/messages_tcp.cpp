// Messages over TCP. Data and notes have a connection each, so that a note gets through while data waits in
// the kernel's buffers for a receiver; nothing is buffered here.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "comm/messages.h"
#include "comm/tcp_mesh.h"

namespace keen {

namespace {

// One `poll` moves at most this much for one peer and direction before it looks at the others.
constexpr size_t kLargestTurn = size_t{16} << 20;
// A note of our own, beside those of Note: its sender has ended the run with the exit code that is the step.
constexpr auto kEnded = static_cast<Note::Kind>(-1);

// Precedes each message.
struct Header {
  uint64_t length = 0;
};

struct Transfer {
  std::span<std::byte> bytes;  // of a sender, only read
  Header header;
  size_t moved = 0;  // of header and bytes together
  size_t left() const { return sizeof header + bytes.size() - moved; }
};

struct Peer {
  Socket data, notes;
  std::deque<Transfer> sends, receives;
  // A note of which a part has come, or gone.
  Note coming, going;
  size_t came = 0, to_go = 0;
};

class TcpMessages final : public Messages {
 public:
  TcpMessages(int rank, TcpMesh mesh) : rank_(rank), peers_(mesh.data.size()) {
    for (size_t peer = 0; peer < peers_.size(); ++peer) {
      peers_[peer].data = std::move(mesh.data[peer]);
      peers_[peer].notes = std::move(mesh.notes[peer]);
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(peers_.size()); }
  void start_send(int to, std::span<const std::byte> bytes) override {
    peer(to).sends.push_back({{const_cast<std::byte*>(bytes.data()), bytes.size()}, {bytes.size()}});
  }
  void start_receive(int from, std::span<std::byte> bytes) override {
    peer(from).receives.push_back({bytes, {}});
  }
  bool poll() override;
  void send_note(int to, const Note& note) override;
  std::optional<Note> next_note() override;
  [[noreturn]] void abort(int exit) override;

 private:
  Peer& peer(int rank) {
    check(rank >= 0 && rank < size() && rank != rank_, "TcpMessages: another rank of this run");
    return peers_[static_cast<size_t>(rank)];
  }
  bool send_some(int to);
  bool receive_some(int from);
  [[noreturn]] void lost(int rank, int error);
  void flush_note(Peer& peer);
  bool take_note(int from);

  int rank_;
  std::vector<Peer> peers_;
  std::optional<Note> ended_by_;  // the first rank that said so
  std::string why_lost_;          // for what the others are told at the end
};

// The parts of a transfer that have not moved yet, for one system call.
size_t rest_of(Transfer& transfer, std::array<iovec, 2>& parts) {
  size_t count = 0;
  if (transfer.moved < sizeof transfer.header) {
    const auto rest = writable_bytes_of(transfer.header).subspan(transfer.moved);
    parts[count++] = {rest.data(), rest.size()};
  }
  const auto rest =
      transfer.bytes.subspan(std::max(transfer.moved, sizeof transfer.header) - sizeof transfer.header);
  if (!rest.empty()) parts[count++] = {rest.data(), std::min(rest.size(), kLargestTurn)};
  return count;
}

bool TcpMessages::poll() {
  if (ended_by_) lost(ended_by_->from, 0);
  bool done = true;
  // Every one that has work is simply tried: asking first which of them could move costs as much as a try.
  for (int peer = 0; peer < size(); ++peer) {
    const bool sent = send_some(peer), received = receive_some(peer);
    done = done && sent && received;
  }
  return done;
}

bool TcpMessages::send_some(int to) {
  Peer& peer = peers_[static_cast<size_t>(to)];
  for (size_t turn = 0; !peer.sends.empty() && turn < kLargestTurn;) {
    Transfer& transfer = peer.sends.front();
    std::array<iovec, 2> parts;
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = rest_of(transfer, parts);
    const ssize_t sent = ::sendmsg(peer.data.descriptor(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && is_for_later(errno)) return false;
    if (sent < 0) lost(to, errno);
    transfer.moved += static_cast<size_t>(sent);
    turn += static_cast<size_t>(sent);
    if (transfer.left() == 0) peer.sends.pop_front();
  }
  return peer.sends.empty();
}

bool TcpMessages::receive_some(int from) {
  Peer& peer = peers_[static_cast<size_t>(from)];
  for (size_t turn = 0; !peer.receives.empty() && turn < kLargestTurn;) {
    Transfer& transfer = peer.receives.front();
    std::array<iovec, 2> parts;
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = rest_of(transfer, parts);
    const ssize_t got = ::recvmsg(peer.data.descriptor(), &message, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && is_for_later(errno)) return false;
    if (got <= 0) lost(from, got == 0 ? 0 : errno);
    transfer.moved += static_cast<size_t>(got);
    turn += static_cast<size_t>(got);
    if (transfer.moved >= sizeof(Header) && transfer.header.length != transfer.bytes.size())
      fail(Exit::communication,
           "rank {} sent {} bytes where rank {} expects {}; do all ranks run the same build and config?",
           from, transfer.header.length, rank_, transfer.bytes.size());
    if (transfer.left() == 0) peer.receives.pop_front();
  }
  return peer.receives.empty();
}

// A rank that ended the run on purpose has said so, and its exit code becomes everybody's.
void TcpMessages::lost(int rank, int error) {
  while (!ended_by_ && take_note(rank)) continue;
  if (ended_by_) {
    const auto exit = static_cast<int>(ended_by_->step);
    const std::string_view why = ended_by_->what.data();
    why_lost_ = fmt::format("rank {} ended the run with exit code {}{}{}", ended_by_->from, exit,
                            why.empty() ? "" : ": ", why);
    throw Error(exit > 0 && exit < 256 ? static_cast<Exit>(exit) : Exit::communication, why_lost_);
  }
  why_lost_ =
      fmt::format("rank {} has gone ({})", rank, error == 0 ? "its connection closed" : std::strerror(error));
  throw Error(Exit::communication, why_lost_);
}

void TcpMessages::flush_note(Peer& peer) {
  if (!peer.notes || peer.to_go == 0) return;
  const auto rest = bytes_of(peer.going).last(peer.to_go);
  const ssize_t sent = ::send(peer.notes.descriptor(), rest.data(), rest.size(), MSG_NOSIGNAL);
  if (sent >= 0)
    peer.to_go -= static_cast<size_t>(sent);
  else if (!is_for_later(errno))
    peer.to_go = 0;
}

void TcpMessages::send_note(int to, const Note& note) {
  Peer& to_peer = peer(to);
  flush_note(to_peer);
  if (!to_peer.notes || to_peer.to_go > 0) return;
  to_peer.going = note;
  to_peer.going.from = rank_;
  to_peer.to_go = sizeof note;
  flush_note(to_peer);
  // Of a note no byte of which has gone, the rank does not listen; a part must be followed by the rest.
  if (to_peer.to_go == sizeof note) to_peer.to_go = 0;
}

// True when a note has come as a whole: it lies in `coming`, or in `ended_by_`, and the next may follow.
bool TcpMessages::take_note(int from) {
  Peer& peer = peers_[static_cast<size_t>(from)];
  if (!peer.notes) return false;
  const auto rest = writable_bytes_of(peer.coming).subspan(peer.came);
  const ssize_t got = ::recv(peer.notes.descriptor(), rest.data(), rest.size(), 0);
  if (got <= 0) {
    // That a rank has gone matters where something is expected of it: `poll` says so then.
    if (got == 0 || !is_for_later(errno)) peer.notes.close();
    return false;
  }
  peer.came += static_cast<size_t>(got);
  if (peer.came < sizeof(Note)) return false;
  peer.came = 0;
  peer.coming.from = from;
  peer.coming.what.back() = '\0';
  if (peer.coming.kind == kEnded && !ended_by_) ended_by_ = peer.coming;
  return true;
}

std::optional<Note> TcpMessages::next_note() {
  std::vector<pollfd> wanted;
  wanted.reserve(peers_.size());
  for (Peer& peer : peers_) {
    flush_note(peer);
    wanted.push_back({peer.notes.descriptor(), POLLIN, 0});  // a negative descriptor is passed over
  }
  if (::poll(wanted.data(), wanted.size(), 0) <= 0) return {};
  for (int peer = 0; peer < size(); ++peer)
    if (wanted[static_cast<size_t>(peer)].revents != 0 && take_note(peer)) {
      const Note& note = peers_[static_cast<size_t>(peer)].coming;
      if (note.kind != kEnded) return note;
    }
  return {};
}

void TcpMessages::abort(int exit) {
  Note note;
  note.kind = kEnded;
  note.step = exit;
  why_lost_.copy(note.what.data(), note.what.size() - 1);
  for (int peer = 0; peer < size(); ++peer)
    if (peer != rank_) send_note(peer, note);
  std::fflush(stdout);
  std::fflush(stderr);
  _exit(exit);  // which closes the connections
}

std::string required(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0')
    fail(Exit::communication,
         "{} is not set; a launch over TCP needs RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each rank",
         name);
  return value;
}

int required_number(const char* name, int least, int most) {
  const std::string text = required(name);
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < least || number > most)
    fail(Exit::communication, "{}={}: must be a whole number from {} to {}", name, text, least, most);
  return number;
}

}  // namespace

TcpPlace tcp_place_of_environment() {
  constexpr int kMostRanks = 65536;
  TcpPlace place;
  place.size = required_number("WORLD_SIZE", 1, kMostRanks);
  place.rank = required_number("RANK", 0, kMostRanks - 1);
  if (place.rank >= place.size)
    fail(Exit::communication, "RANK={}: must be less than WORLD_SIZE={}", place.rank, place.size);
  place.address = required("MASTER_ADDR");
  place.port = required_number("MASTER_PORT", 1, 65535);
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  if (agent != nullptr && std::string_view(agent) == "True") {
    if (place.port == 65535)
      fail(Exit::communication,
           "MASTER_PORT=65535: torchrun keeps this port, and keen takes the next; choose "
           "another one");
    ++place.port;
  }
  for (const char* name : {"TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"})
    if (const char* job = std::getenv(name); job != nullptr && place.job.empty()) place.job = job;
  return place;
}

std::unique_ptr<Messages> connect_tcp(const TcpPlace& place, double timeout_s, const Stopped& stopped) {
  check(place.size >= 1 && place.rank >= 0 && place.rank < place.size, "connect_tcp: a rank of the launch");
  TcpMesh mesh;
  mesh.data.resize(1);
  mesh.notes.resize(1);
  if (place.size > 1) mesh = connect_tcp_mesh(place, timeout_s, stopped);
  return std::make_unique<TcpMessages>(place.rank, std::move(mesh));
}

std::unique_ptr<Messages> connect_tcp(double timeout_s, const Stopped& stopped) {
  return connect_tcp(tcp_place_of_environment(), timeout_s, stopped);
}

}  // namespace keen
