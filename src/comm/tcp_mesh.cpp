#include "comm/tcp_mesh.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string_view>
#include <thread>

#include "comm/tcp_door.h"
#include "core/console.h"

namespace keen {

using namespace tcp;

namespace {

constexpr double kAttemptTime_s = 5;  // for one address of rank 0, before the next one is tried
constexpr double kStopTime_s = 0.1;   // so long nobody looks whether he was stopped
constexpr double kSilentTime_s = 10;  // then a rank says on standard error what it waits for
constexpr uint64_t kLongestReply = uint64_t{1} << 24;

std::string listed(const std::vector<int>& ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

Hello hello_of(const TcpPlace& place) {
  Hello hello;
  hello.rank = place.rank;
  hello.size = place.size;
  place.job.copy(hello.job.data(), hello.job.size() - 1);
  return hello;
}

bool is_this_host_only(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

[[noreturn]] void raise_refusal(const Reply& head, const std::string& why) {
  fail(head.session == static_cast<uint64_t>(Exit::stopped) ? Exit::stopped : Exit::communication, "{}", why);
}

// Writes once, when the time for silence is over, what is waited for.
class Patience {
 public:
  void say(const auto& sentence) {
    if (said_ || Clock::now() < until_) return;
    said_ = true;
    write_warning(sentence());
  }
  Time until() const { return said_ ? Time::max() : until_; }

 private:
  Time until_ = seconds_from_now(kSilentTime_s);
  bool said_ = false;
};

// One rank while the ranks connect; `controls_` are the connections between rank 0 and the others that this
// is done over, and closed with it.
class Start {
 public:
  Start(const TcpPlace& place, double timeout_s, const Stopped& stopped)
      : place_(place),
        timeout_s_(timeout_s),
        stopped_(stopped),
        door_(place.rank == 0 ? place.port : 0, place.rank == 0 && is_this_host_only(place.address)),
        controls_(static_cast<size_t>(place.size)),
        where_(static_cast<size_t>(place.size)) {
    mesh_.data.resize(controls_.size());
    mesh_.notes.resize(controls_.size());
  }

  TcpMesh connect();

 private:
  void as_rank_0();
  void as_other();
  // At most `until`, and soon enough to look again whether this rank was stopped, which is raised.
  Time soon(Time until) const;
  Socket connect_to(const Address& address, Time until, std::string& why_not) const;
  void await_word(const Socket& socket, Time until) const;

  // Of rank 0.
  void gather();
  void admit(Caller caller);
  void tell_where();
  bool hear(size_t rank);

  // Of the others.
  void join();
  bool join_at(Address address, std::string& why_not);
  void take_table(const Reply& head, Time until);
  Reply::Kind hear_rank_0(Time until);
  void call(int rank);

  std::vector<int> missing(const std::vector<Socket>& sockets, int from) const;
  void answer_the_door(Time until);
  bool is_connected() const;

  const TcpPlace& place_;
  const double timeout_s_;
  const Stopped& stopped_;
  Door door_;
  std::vector<Socket> controls_;
  std::vector<Address> where_;
  std::vector<std::string> refused_;  // those of other jobs, for the message when somebody is missing
  uint64_t session_ = 0;
  TcpMesh mesh_;
};

std::vector<int> Start::missing(const std::vector<Socket>& sockets, int from) const {
  std::vector<int> ranks;
  for (int rank = from; rank < place_.size; ++rank)
    if (!sockets[static_cast<size_t>(rank)]) ranks.push_back(rank);
  return ranks;
}

bool Start::is_connected() const {
  return missing(mesh_.data, place_.rank + 1).empty() && missing(mesh_.notes, place_.rank + 1).empty();
}

TcpMesh Start::connect() {
  try {
    place_.rank == 0 ? as_rank_0() : as_other();
  } catch (const Error& error) {
    for (const Socket& control : controls_)
      if (control) refuse(control, error.what(), error.exit);
    throw;
  }
  return std::move(mesh_);
}

Time Start::soon(Time until) const {
  if (stopped_ && stopped_()) fail(Exit::stopped, "rank {} was {}", place_.rank, kStoppedWhileConnecting);
  return std::min(until, seconds_from_now(kStopTime_s));
}

Socket Start::connect_to(const Address& address, Time until, std::string& why_not) const {
  return keen::connect_to(address, until, why_not, [this](Time late) { return soon(late); });
}

// Until something has come, or `until`.
void Start::await_word(const Socket& socket, Time until) const {
  while (Clock::now() < until && !wait_for_bytes(socket, soon(until))) continue;
}

// Waits for one caller or more, and takes the connections of ranks above this one.
void Start::answer_the_door(Time until) {
  for (Caller& caller : door_.wait(soon(until), controls_)) {
    const Hello& hello = caller.hello;
    if (hello.purpose == Purpose::join) {
      refuse(caller.socket, place_.rank == 0
                                ? fmt::format("a second rank {} has come: all {} ranks of this run "
                                              "are there already",
                                              hello.rank, place_.size)
                                : "this is not rank 0");
      continue;
    }
    const bool known = hello.purpose == Purpose::data || hello.purpose == Purpose::notes;
    if (!known || hello.session != session_ || hello.rank <= place_.rank || hello.rank >= place_.size)
      continue;
    auto& sockets = hello.purpose == Purpose::data ? mesh_.data : mesh_.notes;
    sockets[static_cast<size_t>(hello.rank)] = std::move(caller.socket);
  }
}

void Start::as_rank_0() {
  gather();
  tell_where();
  const Time until = seconds_from_now(timeout_s_);
  std::vector<bool> ready(controls_.size(), false);
  ready[0] = true;
  for (;;) {
    for (size_t rank = 1; rank < controls_.size(); ++rank) {
      if (is_closed(controls_[rank]))
        fail(Exit::communication, "rank {} has gone while the ranks connected", rank);
      if (hear(rank)) ready[rank] = true;
    }
    const auto late = std::find(ready.begin(), ready.end(), false);
    if (late == ready.end() && is_connected()) break;
    if (Clock::now() >= until)
      fail(Exit::communication,
           "rank {} has come, but is not connected with all others after {:g} s; can every host reach every "
           "other one at any port?",
           late - ready.begin(), timeout_s_);
    answer_the_door(until);
  }
  for (size_t rank = 1; rank < controls_.size(); ++rank)
    if (!reply(controls_[rank], Reply::Kind::go, {}, session_, until))
      fail(Exit::communication, "rank {} has gone while the ranks connected", rank);
}

void Start::gather() {
  const Time until = seconds_from_now(timeout_s_);
  Patience patience;
  for (;;) {
    // Who goes before all have come may come again.
    for (size_t rank = 1; rank < controls_.size(); ++rank) {
      if (controls_[rank]) hear(rank);
      if (controls_[rank] && is_closed(controls_[rank])) controls_[rank].close();
    }
    const std::vector<int> absent = missing(controls_, 1);
    if (absent.empty()) return;
    if (Clock::now() >= until)
      fail(Exit::communication, "{} of {} did not come to port {} of rank 0 within {:g} s{}{}",
           listed(absent), place_.size, place_.port, timeout_s_,
           refused_.empty() ? "" : "; refused: ", fmt::join(refused_, ", "));
    patience.say([&] {
      return fmt::format("rank 0 waits for {} of {} at port {}", listed(absent), place_.size, place_.port);
    });
    for (Caller& caller : door_.wait(soon(std::min(until, patience.until())), controls_))
      admit(std::move(caller));
  }
}

// A caller of another job is refused. One of this job that does not fit is an error of the launch, which no
// waiting heals: everybody is told.
void Start::admit(Caller caller) {
  const Hello& hello = caller.hello;
  if (hello.purpose != Purpose::join) return;
  const std::string_view job = hello.job.data();
  const Address from = Address::there(caller.socket);
  const Hello mine = hello_of(place_);
  // A job that one of them does not know may be the same one, as in a shell on another host.
  if (!job.empty() && mine.job[0] != '\0' && job != mine.job.data()) {
    refuse(caller.socket,
           fmt::format("port {} of rank 0 belongs to job {}, and this rank to job {}; give each "
                       "its own MASTER_PORT",
                       place_.port, mine.job.data(), without_controls(job)));
    refused_.push_back(
        fmt::format("rank {} of job {} from {}", hello.rank, without_controls(job), from.host()));
    return;
  }
  const auto misfit = [&](const std::string& why) {
    refuse(caller.socket, why);
    fail(Exit::communication, "{}", why);
  };
  if (hello.size != place_.size)
    misfit(
        fmt::format("rank {} from {} was started as one of {} ranks, and rank 0 as one of {}; is "
                    "WORLD_SIZE the same everywhere, and MASTER_PORT={} that of this run alone?",
                    hello.rank, from.host(), hello.size, place_.size, place_.port));
  if (hello.rank < 1 || hello.rank >= place_.size)
    misfit(
        fmt::format("a rank {} of {} has come from {}; RANK must be another number from 0 on for each rank",
                    hello.rank, hello.size, from.host()));
  auto& control = controls_[static_cast<size_t>(hello.rank)];
  auto& where = where_[static_cast<size_t>(hello.rank)];
  if (control)
    misfit(fmt::format("rank {} has come twice, from {} and from {}; RANK must be another one for each rank",
                       hello.rank, where.host(), from.host()));
  where = from;
  where.set_port(hello.port);
  control = std::move(caller.socket);
}

void Start::tell_where() {
  std::random_device random;
  session_ = uint64_t{random()} << 32 | random();
  std::vector<Address::Wire> table(where_.size());
  std::transform(where_.begin() + 1, where_.end(), table.begin() + 1,
                 [](const Address& address) { return address.wire(); });
  const Time until = seconds_from_now(timeout_s_);
  for (size_t rank = 1; rank < controls_.size(); ++rank)
    if (!reply(controls_[rank], Reply::Kind::table, std::as_bytes(std::span(table)), session_, until))
      fail(Exit::communication, "rank {} has gone while the ranks connected", rank);
}

// Whether a rank that has come says that it is ready; why it gives up, if it says so, is raised.
bool Start::hear(size_t rank) {
  const Socket& control = controls_[rank];
  if (is_closed(control) || !wait_for_bytes(control, Clock::now())) return false;
  const Time until = seconds_from_now(kHelloTime_s);
  Reply head;
  if (receive_all(control, writable_bytes_of(head), until) != Moved::all || head.magic != kMagic)
    fail(Exit::communication, "rank {} has gone while the ranks connected", rank);
  if (head.kind != Reply::Kind::refusal) return head.kind == Reply::Kind::ready;
  std::string why(std::min(head.length, kLongestReply), '\0');
  receive_all(control, std::as_writable_bytes(std::span(why)), until);
  controls_[rank].close();
  raise_refusal(head, why);
}

void Start::as_other() {
  join();
  for (int rank = 0; rank < place_.rank; ++rank) call(rank);
  const Time until = seconds_from_now(timeout_s_);
  while (!is_connected()) {
    if (wait_for_bytes(controls_[0], Clock::now())) hear_rank_0(until);  // says why not, or that it has gone
    if (Clock::now() >= until)
      fail(Exit::communication, "{} did not connect to rank {} within {:g} s",
           listed(missing(mesh_.notes, place_.rank + 1)), place_.rank, timeout_s_);
    answer_the_door(until);
  }
  reply(controls_[0], Reply::Kind::ready, {}, session_, until);
  // Rank 0 gives up before this one does, and says why.
  if (hear_rank_0(seconds_from_now(timeout_s_ + kAttemptTime_s)) != Reply::Kind::go)
    fail(Exit::communication, "rank 0 said something else than that all ranks are connected");
}

void Start::join() {
  const Time until = seconds_from_now(timeout_s_);
  auto pause = std::chrono::milliseconds(20);
  Patience patience;
  for (;;) {
    std::string why_not;
    for (Address& address : resolve(place_.address, place_.port, why_not))
      if (join_at(address, why_not)) return;
    if (Clock::now() >= until)
      fail(Exit::communication, "rank {} could not reach rank 0 at {} port {} within {:g} s: {}", place_.rank,
           place_.address, place_.port, timeout_s_, why_not);
    patience.say([&] {
      return fmt::format("rank {} waits for rank 0 at {} port {}: {}", place_.rank, place_.address,
                         place_.port, why_not);
    });
    soon(until);
    std::this_thread::sleep_for(std::min<Clock::duration>(pause, std::max(until - Clock::now(), {})));
    pause = std::min(pause * 3 / 2, std::chrono::milliseconds(1000));
  }
}

// False when nobody is there, or has gone before all ranks had come: it may be there later.
bool Start::join_at(Address address, std::string& why_not) {
  Socket& socket = controls_[0];
  socket = connect_to(address, seconds_from_now(std::min(kAttemptTime_s, timeout_s_)), why_not);
  if (!socket) return false;
  Hello hello = hello_of(place_);
  hello.port = door_.port();
  // Rank 0 gives up before this one does, and says why.
  const Time until = seconds_from_now(timeout_s_ + kAttemptTime_s);
  Reply head;
  const Moved sent = send_all(socket, bytes_of(hello), until);
  await_word(socket, until);
  const Moved moved = sent == Moved::all ? receive_all(socket, writable_bytes_of(head), until) : sent;
  if (moved != Moved::all) {
    why_not = moved == Moved::closed ? "it closed the connection" : "it took the connection and says nothing";
    socket.close();
    return false;
  }
  if (head.magic != kMagic || head.length > kLongestReply) {
    socket.close();
    fail(Exit::communication,
         "what answers rank {} at {} is no rank 0 of keen; MASTER_PORT must be one that nobody else uses",
         place_.rank, address.str());
  }
  where_[0] = address;
  take_table(head, until);
  return true;
}

// Who lies on rank 0's own host was seen there by an address that other hosts cannot use: it is where rank 0
// is.
void Start::take_table(const Reply& head, Time until) {
  std::string content(head.length, '\0');
  if (receive_all(controls_[0], std::as_writable_bytes(std::span(content)), until) != Moved::all)
    fail(Exit::communication, "rank 0 has gone while the ranks connected");
  if (head.kind == Reply::Kind::refusal) raise_refusal(head, content);
  std::vector<Address::Wire> table(where_.size());
  if (head.kind != Reply::Kind::table || head.version != kVersion ||
      content.size() != table.size() * sizeof(Address::Wire))
    fail(Exit::communication, "rank 0 speaks another protocol: start the same build of keen everywhere");
  std::memcpy(table.data(), content.data(), content.size());
  for (size_t rank = 1; rank < where_.size(); ++rank) {
    Address address(table[rank]);
    if (address.is_loopback() && !where_[0].is_loopback()) {
      address = where_[0];
      address.set_port(table[rank].port);
    }
    address.take_scope_of(where_[0]);
    where_[rank] = address;
  }
  session_ = head.session;
}

// Anything but a refusal, which is raised.
Reply::Kind Start::hear_rank_0(Time until) {
  Reply head;
  await_word(controls_[0], until);
  const Moved moved = receive_all(controls_[0], writable_bytes_of(head), until);
  if (moved == Moved::too_late)
    fail(Exit::communication, "rank 0 did not say within {:g} s that all ranks are connected", timeout_s_);
  std::string content(moved == Moved::all ? std::min(head.length, kLongestReply) : 0, '\0');
  if (moved == Moved::closed ||
      receive_all(controls_[0], std::as_writable_bytes(std::span(content)), until) != Moved::all)
    fail(Exit::communication, "rank 0 has gone while the ranks connected");
  if (head.kind == Reply::Kind::refusal) raise_refusal(head, content);
  return head.kind;
}

// Both connections to a rank below this one.
void Start::call(int rank) {
  const auto index = static_cast<size_t>(rank);
  for (const Purpose purpose : {Purpose::data, Purpose::notes}) {
    const Time until = seconds_from_now(timeout_s_);
    std::string why_not;
    Socket socket = connect_to(where_[index], until, why_not);
    Hello hello = hello_of(place_);
    hello.purpose = purpose;
    hello.session = session_;
    if (socket && send_all(socket, bytes_of(hello), until) != Moved::all) {
      why_not = "it closed the connection";
      socket.close();
    }
    if (!socket)
      fail(Exit::communication,
           "rank {} cannot reach rank {} at {}: {}; every host must reach every other one at any port",
           place_.rank, rank, where_[index].str(), why_not);
    (purpose == Purpose::data ? mesh_.data : mesh_.notes)[index] = std::move(socket);
  }
}

}  // namespace

TcpMesh connect_tcp_mesh(const TcpPlace& place, double timeout_s, const Stopped& stopped) {
  return Start(place, timeout_s, stopped).connect();
}

}  // namespace keen
