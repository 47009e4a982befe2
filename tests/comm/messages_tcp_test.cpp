// Ranks as threads of this process, each with connections of its own; ranks that die are processes.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <map>
#include <thread>
#include <vector>

#include "comm/messages.h"
#include "comm/tcp_door.h"
#include "core/check.h"
#include "free_port.h"

namespace keen {
namespace {

constexpr double kPlenty_s = 60;

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

TcpPlace place_of(int rank, int size, int port) { return {rank, size, "127.0.0.1", port, ""}; }

struct Outcome {
  std::string message;  // of the error that was raised
  Exit exit = Exit::done;
};

Outcome outcome_of(const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.what(), error.exit};
  }
  return {};
}

// Connects each place in a thread of its own, and runs `body` with the connected ranks.
std::vector<Outcome> run(const std::vector<TcpPlace>& places, double timeout_s, const auto& body) {
  std::vector<Outcome> outcomes(places.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < places.size(); ++i)
    threads.emplace_back(
        [&, i] { outcomes[i] = outcome_of([&] { body(*connect_tcp(places[i], timeout_s)); }); });
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

std::vector<Outcome> run(int size, const auto& body) {
  const int port = testing::free_port();
  std::vector<TcpPlace> places;
  for (int rank = 0; rank < size; ++rank) places.push_back(place_of(rank, size, port));
  return run(places, kPlenty_s, body);
}

void expect_done(const std::vector<Outcome>& outcomes) {
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.message, "");
}

void expect_says(const Outcome& outcome, const std::string& part, Exit exit = Exit::communication) {
  EXPECT_EQ(static_cast<int>(outcome.exit), static_cast<int>(exit)) << outcome.message;
  EXPECT_NE(outcome.message.find(part), std::string::npos) << outcome.message << "\nwithout: " << part;
}

void finish(Messages& messages) {
  while (!messages.poll()) std::this_thread::yield();
}

// What a rank sends: no two ranks, places or targets (which begin at another place) have the same bytes.
std::byte byte_at(int rank, size_t i) {
  return static_cast<std::byte>((i * 2654435761u + static_cast<size_t>(rank) * 40503u) >> 13);
}

std::vector<std::byte> bytes_of_rank(int rank, size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = byte_at(rank, i);
  return bytes;
}

class TcpRanks : public ::testing::TestWithParam<int> {};

TEST_P(TcpRanks, MessagesOfAllLengthsBetweenAllPairsAtOnce) {
  const std::vector<size_t> lengths = {0, 1, 65536, 0, size_t{64} << 20, 1, 1, 65536};
  expect_done(run(GetParam(), [&](Messages& messages) {
    const int rank = messages.rank(), size = messages.size();
    EXPECT_EQ(size, GetParam());
    // Message m to rank t begins at place 1000 m + t of what this rank has.
    const auto begin = [](size_t m, int to) { return 1000 * m + static_cast<size_t>(to); };
    const std::vector<std::byte> mine = bytes_of_rank(rank, (size_t{64} << 20) + 10000);
    std::map<std::pair<int, size_t>, std::vector<std::byte>> got;
    for (size_t m = 0; m < lengths.size(); ++m)
      for (int peer = 0; peer < size; ++peer) {
        if (peer == rank) continue;
        auto& buffer = got[{peer, m}] = std::vector<std::byte>(lengths[m]);
        messages.start_send(peer, std::span(mine).subspan(begin(m, peer), lengths[m]));
        messages.start_receive(peer, buffer);
      }
    finish(messages);
    for (const auto& [from, buffer] : got) {
      size_t wrong = 0;
      for (size_t i = 0; i < buffer.size(); ++i)
        wrong += buffer[i] != byte_at(from.first, begin(from.second, rank) + i);
      EXPECT_EQ(wrong, 0u) << "message " << from.second << " from rank " << from.first << " to " << rank;
    }
  }));
}

INSTANTIATE_TEST_SUITE_P(Sizes, TcpRanks, ::testing::Values(1, 2, 3, 4));

TEST(TcpMessages, AddressesOfIpv6AndNames) {
  for (const char* address : {"::1", "localhost"}) {
    const int probe = ::socket(AF_INET6, SOCK_STREAM, 0);
    if (probe < 0 && std::string(address) == "::1") continue;  // this kernel has no IPv6
    ::close(probe);
    const int port = testing::free_port();
    const std::vector<TcpPlace> places = {
        {0, 3, address, port, ""}, {1, 3, address, port, ""}, {2, 3, address, port, ""}};
    expect_done(run(places, kPlenty_s, [](Messages& messages) {
      const int32_t sent = 7 + messages.rank();
      int32_t got = 0;
      messages.start_send((messages.rank() + 1) % 3, std::as_bytes(std::span(&sent, 1)));
      messages.start_receive((messages.rank() + 2) % 3, std::as_writable_bytes(std::span(&got, 1)));
      finish(messages);
      EXPECT_EQ(got, 7 + (messages.rank() + 2) % 3);
    }));
  }
}

TEST(TcpMessages, NotesPassDataThatIsStuck) {
  const size_t length = size_t{64} << 20;
  expect_done(run(2, [&](Messages& messages) {
    std::optional<Note> note;
    const auto wait_for_note = [&] {
      do {
        note = messages.next_note();
        if (!note) std::this_thread::yield();
      } while (!note);
    };
    if (messages.rank() == 0) {
      const std::vector<std::byte> data = bytes_of_rank(0, length);
      messages.start_send(1, data);
      // As much as fits into the kernel's buffers: rank 1 does not receive yet.
      for (int i = 0; i < 1000; ++i) ASSERT_FALSE(messages.poll());
      Note question;
      question.step = 41;
      std::string_view("the sum of bucket 3").copy(question.what.data(), question.what.size() - 1);
      messages.send_note(1, question);
      wait_for_note();
      EXPECT_EQ(note->kind, Note::Kind::answer);
      EXPECT_EQ(note->from, 1);
      EXPECT_EQ(note->step, 42);
      EXPECT_FALSE(messages.poll());
      messages.send_note(1, question);
      finish(messages);
    } else {
      wait_for_note();
      EXPECT_EQ(note->kind, Note::Kind::question);
      EXPECT_EQ(note->from, 0);
      EXPECT_EQ(note->step, 41);
      EXPECT_STREQ(note->what.data(), "the sum of bucket 3");
      Note answer;
      answer.kind = Note::Kind::answer;
      answer.step = 42;
      messages.send_note(0, answer);
      wait_for_note();
      std::vector<std::byte> data(length);
      messages.start_receive(0, data);
      finish(messages);
      EXPECT_TRUE(data == bytes_of_rank(0, length));
    }
  }));
}

TEST(TcpMessages, NotesToWhomDoesNotListenAreLost) {
  constexpr int64_t kNotes = 200'000;  // more than the buffers of a connection hold
  expect_done(run(2, [&](Messages& messages) {
    std::byte token{};
    if (messages.rank() == 0) {
      Note note;
      for (note.step = 1; note.step <= kNotes; ++note.step) messages.send_note(1, note);
      messages.start_send(1, std::span(&token, 1));
      finish(messages);
      messages.start_receive(1, std::span(&token, 1));
      while (!messages.poll()) EXPECT_FALSE(messages.next_note());  // and what is left of a note goes
    } else {
      messages.start_receive(0, std::span(&token, 1));
      finish(messages);
      int64_t last = 0, count = 0;
      for (auto note = messages.next_note(); note; note = messages.next_note(), ++count) {
        EXPECT_GT(note->step, last);
        EXPECT_LE(note->step, kNotes);
        last = note->step;
      }
      EXPECT_GT(count, 100);
      EXPECT_LT(count, kNotes);
      messages.start_send(0, std::span(&token, 1));
      finish(messages);
    }
  }));
}

TEST(TcpMessages, EndsInAnyOrder) {
  expect_done(run(3, [&](Messages& messages) {
    std::vector<std::byte> data(1 << 20);
    if (messages.rank() == 0) {
      for (int to : {1, 2}) messages.start_send(to, data);
      finish(messages);
      return;  // and closes, with the others still at work
    }
    // What rank 0 sent arrives though it may be gone, and that it is gone is no error by itself.
    messages.start_receive(0, data);
    finish(messages);
    const int other = 3 - messages.rank();
    std::vector<std::byte> got(data.size());
    for (int i = 0; i < 20; ++i) {
      messages.send_note(0, {});
      EXPECT_FALSE(messages.next_note());
      messages.start_send(other, data);
      messages.start_receive(other, got);
      finish(messages);
    }
  }));
}

TEST(TcpMessages, LengthsThatDifferAreAnError) {
  const auto outcomes = run(2, [](Messages& messages) {
    std::vector<std::byte> data(10);
    if (messages.rank() == 0)
      messages.start_send(1, std::span(data).first(9));
    else
      messages.start_receive(0, data);
    finish(messages);
  });
  EXPECT_EQ(outcomes[0].message, "");
  expect_says(outcomes[1], "rank 0 sent 9 bytes where rank 1 expects 10");
}

TEST(TcpStart, RanksThatDoNotComeAreNamed) {
  const int port = testing::free_port();
  const auto none = [](Messages&) { ADD_FAILURE() << "connected"; };
  const auto outcomes = run({place_of(0, 4, port), place_of(2, 4, port)}, 0.5, none);
  // Rank 0 tells those who have come.
  for (const Outcome& outcome : outcomes)
    expect_says(outcome, fmt::format("ranks 1, 3 of 4 did not come to port {} of rank 0 within 0.5 s", port));
  expect_says(
      run({place_of(1, 2, port)}, 0.1, none)[0],
      fmt::format("rank 1 could not reach rank 0 at 127.0.0.1 port {} within 0.1 s: Connection refused",
                  port));
}

TEST(TcpStart, RankZeroMayComeLast) {
  const int port = testing::free_port();
  std::vector<Outcome> others;
  std::thread first([&] { others = run({place_of(1, 2, port)}, kPlenty_s, [](Messages&) {}); });
  // Rank 1 has called once and in vain when somebody has answered it and hung up.
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  const int yes = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const sockaddr_in address = loopback(port);
  ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  const int caller = ::accept(listener, nullptr, nullptr);
  ::close(listener);
  ::close(caller);
  expect_done(run({place_of(0, 2, port)}, kPlenty_s, [](Messages&) {}));
  first.join();
  expect_done(others);
}

TEST(TcpStart, RanksThatDoNotGoTogether) {
  const auto none = [](Messages&) { ADD_FAILURE() << "connected"; };
  int port = testing::free_port();
  for (const Outcome& outcome : run({place_of(0, 3, port), place_of(1, 2, port)}, kPlenty_s, none))
    expect_says(outcome, "rank 1 from 127.0.0.1 was started as one of 2 ranks, and rank 0 as one of 3");
  port = testing::free_port();
  auto outcomes = run({place_of(0, 3, port), place_of(1, 3, port), place_of(1, 3, port)}, kPlenty_s, none);
  for (const Outcome& outcome : outcomes)
    expect_says(outcome, "rank 1 has come twice, from 127.0.0.1 and from 127.0.0.1");
}

TEST(TcpStart, TwoRankZerosOnOnePort) {
  const int port = testing::free_port();
  const auto outcomes = run({place_of(0, 2, port), place_of(0, 2, port)}, 0.5, [](Messages&) {});
  const bool first_listens = outcomes[0].message.find("rank 1 of 2") != std::string::npos;
  expect_says(outcomes[first_listens ? 1 : 0],
              fmt::format("cannot listen at port {}: Address already in use", port));
}

TEST(TcpStart, AnotherJobIsRefusedAndThisOneGoesOn) {
  const int port = testing::free_port();
  std::vector<TcpPlace> places = {place_of(0, 2, port), place_of(1, 2, port), place_of(1, 2, port)};
  places[0].job = "mine";
  places[1].job = "theirs";
  // The third comes when the second was refused.
  std::vector<Outcome> ours(1), theirs;
  std::thread zero([&] { ours = run({places[0]}, kPlenty_s, [](Messages&) {}); });
  theirs = run({places[1]}, kPlenty_s, [](Messages&) { ADD_FAILURE() << "connected"; });
  places[2].job = "mine";
  expect_done(run({places[2]}, kPlenty_s, [](Messages&) {}));
  zero.join();
  expect_done(ours);
  expect_says(theirs[0],
              fmt::format("port {} of rank 0 belongs to job mine, and this rank to job theirs", port));
}

TEST(TcpStart, StrangersKeepNobodyWaiting) {
  const int port = testing::free_port();
  std::vector<Outcome> zero;
  std::thread thread([&] { zero = run({place_of(0, 2, port)}, kPlenty_s, [](Messages&) {}); });
  const sockaddr_in address = loopback(port);
  std::vector<int> strangers;
  for (const std::string_view says : {"", "GET / HTTP/1.1\r\nHost: keen\r\n\r\n", "x"}) {
    int stranger;
    for (;;) {  // until rank 0 listens
      stranger = ::socket(AF_INET, SOCK_STREAM, 0);
      if (::connect(stranger, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) break;
      ::close(stranger);
      std::this_thread::yield();
    }
    EXPECT_EQ(::send(stranger, says.data(), says.size(), MSG_NOSIGNAL), static_cast<ssize_t>(says.size()));
    strangers.push_back(stranger);
  }
  // Who asks for a page is shown out, which also shows that rank 0 has seen the first one by now.
  char answer;
  EXPECT_LE(::recv(strangers[1], &answer, 1, 0), 0);
  const auto begin = std::chrono::steady_clock::now();
  expect_done(run({place_of(1, 2, port)}, kPlenty_s, [](Messages&) {}));
  thread.join();
  expect_done(zero);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(8));  // they may stay for 10
  for (const int stranger : strangers) ::close(stranger);
}

// Whichever rank is stopped, and however far the ranks have come: those that know of each other all end.
TEST(TcpStart, AStopIsHeardAndTold) {
  const auto none = [](Messages&) { ADD_FAILURE() << "connected"; };
  const auto stop = [] { return true; };
  for (const int rank : {0, 1}) {
    const TcpPlace alone = place_of(rank, 2, testing::free_port());
    expect_says(outcome_of([&] { none(*connect_tcp(alone, kPlenty_s, stop)); }),
                fmt::format("rank {} was stopped by a signal while the ranks connected", rank),
                Exit::stopped);
  }
  for (const int stopped : {0, 1, 2}) {
    const int port = testing::free_port();  // rank 3 never comes
    std::atomic<bool> now = false;
    std::vector<Outcome> outcomes(3);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank)
      threads.emplace_back([&, rank] {
        const auto asked = [&, rank] { return now && rank == stopped; };
        outcomes[static_cast<size_t>(rank)] =
            outcome_of([&] { none(*connect_tcp(place_of(rank, 4, port), kPlenty_s, asked)); });
      });
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    now = true;
    for (std::thread& thread : threads) thread.join();
    for (const Outcome& outcome : outcomes)
      expect_says(outcome, fmt::format("rank {} was stopped by a signal", stopped), Exit::stopped);
  }
}

// Rank 1 has come, and is where nothing answers who calls: at a listener whose queue is full.
TEST(TcpStart, AStopIsHeardWhileARankIsCalled) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in full = loopback(0);
  socklen_t length = sizeof full;
  ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&full), length), 0);
  ASSERT_EQ(::listen(listener, 0), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&full), &length), 0);
  std::vector<int> queue;
  for (int i = 0; i < 8; ++i) {
    queue.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    ::connect(queue.back(), reinterpret_cast<const sockaddr*>(&full), sizeof full);
  }

  const int port = testing::free_port();
  std::atomic<bool> now = false;
  std::array<Outcome, 3> outcomes;
  std::vector<std::thread> threads;
  for (const int rank : {0, 2})
    threads.emplace_back([&, rank] {
      outcomes[static_cast<size_t>(rank)] = outcome_of(
          [&] { connect_tcp(place_of(rank, 3, port), kPlenty_s, [&, rank] { return now && rank == 2; }); });
    });
  tcp::Hello hello;
  hello.rank = 1;
  hello.size = 3;
  hello.port = ntohs(full.sin_port);
  Socket one;
  std::string why_not;
  const Time until = seconds_from_now(kPlenty_s);
  while (!one)
    one =
        connect_to(Address(Address::Wire{0, 0, static_cast<uint16_t>(port), {127, 0, 0, 1}}), until, why_not);
  ASSERT_EQ(send_all(one, bytes_of(hello), until), Moved::all);
  // Rank 2 calls when all have come and were told so.
  ASSERT_TRUE(wait_for_bytes(one, until));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const Time signal = Clock::now();
  now = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(Clock::now() - signal, std::chrono::milliseconds(1500));
  for (const int rank : {0, 2})
    expect_says(outcomes[static_cast<size_t>(rank)], "rank 2 was stopped by a signal", Exit::stopped);
  for (const int socket : queue) ::close(socket);
  ::close(listener);
}

TEST(TcpStart, WhatAnswersIsNoRankZero) {
  const int port = testing::free_port(), listener = ::socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = loopback(port);
  ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  std::thread server([&] {
    const int caller = ::accept(listener, nullptr, nullptr);
    const std::string page = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    ::send(caller, page.data(), page.size(), MSG_NOSIGNAL);
    char rest[1000];
    while (::recv(caller, rest, sizeof rest, 0) > 0) continue;
    ::close(caller);
  });
  const auto outcomes = run({place_of(1, 2, port)}, kPlenty_s, [](Messages&) {});
  expect_says(outcomes[0], fmt::format("what answers rank 1 at 127.0.0.1:{} is no rank 0 of keen", port));
  server.join();
  ::close(listener);
}

// A rank as a process of its own; it ends as `body` lets it, or with 0.
pid_t fork_rank(const TcpPlace& place, const auto& body) {
  const pid_t child = fork();
  if (child != 0) return child;
  const Outcome outcome = outcome_of([&] { body(*connect_tcp(place, kPlenty_s)); });
  std::fputs(outcome.message.c_str(), stderr);
  _exit(outcome.message.empty() ? 0 : 99);
}

int status_of(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(TcpDeath, InTheMiddleOfAMessage) {
  const std::vector<std::byte> data(size_t{64} << 20);
  for (const bool sends : {true, false}) {
    const int port = testing::free_port();
    const pid_t child = fork_rank(place_of(1, 2, port), [&](Messages& messages) {
      std::vector<std::byte> part = data;
      if (sends)
        messages.start_send(0, part);
      else
        messages.start_receive(0, part);
      for (int i = 0; i < 3; ++i) messages.poll();
      kill(getpid(), SIGKILL);
    });
    const auto messages = connect_tcp(place_of(0, 2, port), kPlenty_s);
    std::vector<std::byte> mine = data;
    if (sends)
      messages->start_receive(1, mine);
    else
      messages->start_send(1, mine);
    expect_says(outcome_of([&] { finish(*messages); }), "rank 1 has gone (");
    EXPECT_TRUE(WIFSIGNALED(status_of(child)));
    expect_says(outcome_of([&] {
                  for (;;) messages->poll();
                }),
                "rank 1 has gone (");
  }
}

TEST(TcpDeath, AbortEndsTheOthersWithItsExitCode) {
  const int port = testing::free_port();
  const pid_t child = fork_rank(place_of(1, 2, port), [](Messages& messages) { messages.abort(5); });
  const auto messages = connect_tcp(place_of(0, 2, port), kPlenty_s);
  // Nothing is expected of rank 1: whoever looks for notes hears of it all the same.
  const Outcome outcome = outcome_of([&] {
    for (;;) {
      EXPECT_FALSE(messages->next_note());
      messages->poll();
    }
  });
  expect_says(outcome, "rank 1 ended the run with exit code 5", Exit::non_finite);
  const int status = status_of(child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 5);
}

TEST(TcpDeath, AbortSaysWhoWasLost) {
  const int port = testing::free_port();
  const pid_t waits = fork_rank(place_of(1, 3, port), [](Messages& messages) {
    std::byte byte;
    messages.start_receive(2, std::span(&byte, 1));
    try {
      finish(messages);
    } catch (const Error& error) {
      messages.abort(static_cast<int>(error.exit));
    }
  });
  const pid_t dies = fork_rank(place_of(2, 3, port), [](Messages&) { kill(getpid(), SIGKILL); });
  const auto messages = connect_tcp(place_of(0, 3, port), kPlenty_s);
  std::byte byte;
  messages->start_receive(1, std::span(&byte, 1));
  expect_says(outcome_of([&] { finish(*messages); }),
              "rank 1 ended the run with exit code 7: rank 2 has gone (");
  EXPECT_TRUE(WIFSIGNALED(status_of(dies)));
  const int status = status_of(waits);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(Exit::communication));
}

class TcpEnvironment : public ::testing::Test {
 protected:
  TcpEnvironment() {
    for (const char* name : kNames) {
      if (const char* value = std::getenv(name)) before_[name] = value;
      unsetenv(name);
    }
    set("RANK", "2");
    set("WORLD_SIZE", "4");
    set("MASTER_ADDR", "node7");
    set("MASTER_PORT", "29500");
  }
  ~TcpEnvironment() override {
    for (const char* name : kNames) unsetenv(name);
    for (const auto& [name, value] : before_) set(name.c_str(), value.c_str());
  }
  static void set(const char* name, const char* value) { setenv(name, value, 1); }

  static constexpr std::array kNames = {"RANK",        "WORLD_SIZE",          "MASTER_ADDR",
                                        "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE",
                                        "SLURM_JOB_ID"};
  std::map<std::string, std::string> before_;
};

TEST_F(TcpEnvironment, IsRead) {
  TcpPlace place = tcp_place_of_environment();
  EXPECT_EQ(place.rank, 2);
  EXPECT_EQ(place.size, 4);
  EXPECT_EQ(place.address, "node7");
  EXPECT_EQ(place.port, 29500);
  EXPECT_EQ(place.job, "");
  set("SLURM_JOB_ID", "1234");
  EXPECT_EQ(tcp_place_of_environment().job, "1234");
  set("TORCHELASTIC_RUN_ID", "night");
  set("TORCHELASTIC_USE_AGENT_STORE", "True");
  place = tcp_place_of_environment();
  EXPECT_EQ(place.job, "night");
  EXPECT_EQ(place.port, 29501);
}

TEST_F(TcpEnvironment, ErrorsNameTheVariableAndItsValue) {
  struct Case {
    const char *name, *value, *says;
  };
  for (const Case& c : {Case{"RANK", "4", "RANK=4: must be less than WORLD_SIZE=4"},
                        {"RANK", "two", "RANK=two: must be a whole number"},
                        {"RANK", "-1", "RANK=-1: must be a whole number"},
                        {"WORLD_SIZE", "0", "WORLD_SIZE=0: must be a whole number from 1"},
                        {"WORLD_SIZE", "4x", "WORLD_SIZE=4x"},
                        {"MASTER_PORT", "65536", "MASTER_PORT=65536: must be a whole number from 1 to 65535"},
                        {"MASTER_ADDR", "", "MASTER_ADDR is not set"}}) {
    const std::string before = std::getenv(c.name);
    set(c.name, c.value);
    expect_says(outcome_of([] { tcp_place_of_environment(); }), c.says);
    set(c.name, before.c_str());
  }
}

}  // namespace
}  // namespace keen
