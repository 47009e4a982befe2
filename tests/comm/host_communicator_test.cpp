// Collectives over TCP, the ranks being threads of this process.
#include "comm/host_communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <numeric>
#include <optional>
#include <random>

#include "ranks.h"

namespace keen {
namespace {

using testing::on_ranks;

template <class T> Tensor flat_over(std::vector<T>& numbers) {
  Tensor x;
  x.data = reinterpret_cast<std::byte*>(numbers.data());
  x.dtype = dtype_of<T>;
  x.shape = {static_cast<int64_t>(numbers.size())};
  return x;
}

// Of rank r, element i: numbers whose sums float64 holds exactly.
double number(int rank, size_t i) { return static_cast<double>((i * 7 + 3) % 1001) + 1000.0 * rank; }

class Ranks : public ::testing::TestWithParam<int> {};

TEST_P(Ranks, SumAndGatherSlices) {
  const int R = GetParam();
  on_ranks(R, [&](HostCommunicator& comm) {
    EXPECT_EQ(comm.size(), R);
    Context ctx;
    // Slices shorter than a piece, empty, and of several pieces with a rest.
    for (const size_t slice : {5, 0, 400'001}) {
      const size_t n = slice * static_cast<size_t>(R);
      std::vector<double> x(n), want(n);
      for (size_t i = 0; i < n; ++i) {
        x[i] = number(comm.rank(), i);
        for (int rank = 0; rank < R; ++rank) want[i] += number(rank, i);
      }
      comm.start_sum_slices(ctx, flat_over(x), "a sum");
      comm.finish(ctx);
      const size_t begin = slice * static_cast<size_t>(comm.rank());
      for (size_t i = begin; i < begin + slice; ++i) ASSERT_EQ(x[i], want[i]) << i;
      comm.start_gather_slices(ctx, flat_over(x), "a gather");
      comm.finish(ctx);
      ASSERT_EQ(x, want);
    }
  });
}

// What is begun one after the other ends in order: a sum of gathered sums.
TEST_P(Ranks, ManyBegunAtOnce) {
  const int R = GetParam();
  on_ranks(R, [&](HostCommunicator& comm) {
    Context ctx;
    std::vector<std::vector<float>> buckets(20);
    for (size_t b = 0; b < buckets.size(); ++b) {
      buckets[b].assign(static_cast<size_t>(R) * 100 * b, static_cast<float>(comm.rank() + 1));
      comm.start_sum_slices(ctx, flat_over(buckets[b]), "a bucket");
      comm.start_gather_slices(ctx, flat_over(buckets[b]), "a bucket");
    }
    comm.finish(ctx);
    for (const auto& bucket : buckets)
      for (const float x : bucket) ASSERT_EQ(x, static_cast<float>(R * (R + 1) / 2));
  });
}

// Rounding depends on the order of additions, which must not depend on who is when ready.
TEST_P(Ranks, TheSameBitsOnEveryRankAndEveryTime) {
  const int R = GetParam();
  std::vector<std::vector<float>> results(static_cast<size_t>(2 * R));
  for (int time = 0; time < 2; ++time)
    on_ranks(R, [&](HostCommunicator& comm) {
      std::mt19937 random(static_cast<unsigned>(comm.rank()));
      std::vector<float> x(static_cast<size_t>(R) * 3000);
      for (float& value : x) value = std::normal_distribution<float>()(random);
      Context ctx;
      if (comm.rank() == time) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      comm.start_sum_slices(ctx, flat_over(x), "a sum");
      comm.start_gather_slices(ctx, flat_over(x), "a gather");
      comm.finish(ctx);
      results[static_cast<size_t>(time * R + comm.rank())] = x;
    });
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST_P(Ranks, SmallNumbersTextAndBytes) {
  const int R = GetParam();
  on_ranks(R, [&](HostCommunicator& comm) {
    std::vector<double> numbers = {1.0, static_cast<double>(comm.rank()), 0.1};
    comm.sum(numbers, "numbers");
    double tenths = 0;
    for (int rank = 0; rank < R; ++rank) tenths += 0.1;
    EXPECT_EQ(numbers, (std::vector<double>{static_cast<double>(R), R * (R - 1) / 2.0, tenths}));

    for (const std::string& said : {std::string("what rank 0 says"), std::string()}) {
      std::string text = comm.rank() == 0 ? said : "something longer that is overwritten";
      comm.broadcast(text, "text");
      EXPECT_EQ(text, said);
    }
    if (R < 2 || comm.rank() > 1) return;
    std::vector<std::byte> bytes(3'000'000, comm.rank() == 0 ? std::byte{0} : std::byte{42});
    if (comm.rank() == 1)
      comm.send(0, bytes, "bytes");
    else
      comm.receive(1, bytes, "bytes");
    EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte{42}), 3'000'000);
  });
}

// n (R - 1) / R elements for a sum of slices, and as many for a gather.
TEST_P(Ranks, SendNoMoreThanTheLeast) {
  const int R = GetParam();
  on_ranks(R, [&](HostCommunicator& comm) {
    std::vector<float> x(static_cast<size_t>(R) * 1000);
    Context ctx;
    comm.start_sum_slices(ctx, flat_over(x), "a sum");
    comm.finish(ctx);
    EXPECT_EQ(comm.bytes_sent(), 4 * 1000 * (R - 1));
    comm.start_gather_slices(ctx, flat_over(x), "a gather");
    comm.finish(ctx);
    EXPECT_EQ(comm.bytes_sent(), 2 * 4 * 1000 * (R - 1));
  });
}
INSTANTIATE_TEST_SUITE_P(Sizes, Ranks, ::testing::Values(1, 2, 3, 4));

// Rank 0 works for longer than the limit and the time to answer together; the others wait for it, and for
// each other.
TEST(HostCommunicatorWait, GoesOnWhileRankZeroSaysThatItWorks) {
  on_ranks(
      3,
      [](HostCommunicator& comm) {
        for (const int64_t step : {1, 2}) comm.at_step(step);  // the first one may take longer
        if (comm.rank() == 0) {
          const LongWork work(comm, "something long");
          std::this_thread::sleep_for(std::chrono::milliseconds(4000));
        }
        std::array<double, 1> ones = {1};
        comm.sum(ones, "what comes after it");
        EXPECT_EQ(ones[0], 3);
      },
      0.2);
}

// What comes while the others are asked is not waited for any longer.
TEST(HostCommunicatorWait, EndsAsSoonAsItHasCome) {
  on_ranks(
      2,
      [](HostCommunicator& comm) {
        for (const int64_t step : {1, 2}) comm.at_step(step);
        if (comm.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(400));
        const auto begin = std::chrono::steady_clock::now();
        std::array<double, 1> ones = {1};
        comm.sum(ones, "what comes late");
        EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1500));
      },
      0.2);
}

// Rank 1 of 2; of rank 0 there is only a script. Asked where it is, it asks itself, says that it works when
// the time to answer is over, and then does what is waited for.
class BesideAScript final : public Messages {
 public:
  int rank() const override { return 1; }
  int size() const override { return 2; }
  void start_send(int, std::span<const std::byte>) override { done_ = false; }
  void start_receive(int, std::span<std::byte>) override { done_ = false; }
  bool poll() override { return done_ = done_ || is_past(3000); }
  void send_note(int, const Note& note) override {
    if (note.kind != Note::Kind::question || asked_) return;
    asked_ = std::chrono::steady_clock::now();
    notes_ = {{0, {.kind = Note::Kind::question, .doing = Note::Doing::waiting}},
              {2400, {.kind = Note::Kind::answer, .doing = Note::Doing::working}}};
  }
  std::optional<Note> next_note() override {
    if (notes_.empty() || !is_past(notes_.front().first)) return {};
    const Note note = notes_.front().second;
    notes_.pop_front();
    return note;
  }
  void abort(int exit) override { std::_Exit(exit); }

 private:
  bool is_past(int milliseconds) const {
    return asked_ && std::chrono::steady_clock::now() - *asked_ > std::chrono::milliseconds(milliseconds);
  }

  bool done_ = true;
  std::optional<std::chrono::steady_clock::time_point> asked_;
  std::deque<std::pair<int, Note>> notes_;  // and after how many milliseconds they come
};

TEST(HostCommunicatorWait, HearsALateExcuse) {
  HostCommunicator comm([] { return std::make_unique<BesideAScript>(); }, 0.2);
  for (const int64_t step : {1, 2}) comm.at_step(step);
  std::array<double, 1> ones = {1};
  comm.sum(ones, "what comes after it");
}

// As a collective of a device does: it waits, and asks the others by this communicator.
TEST(HostCommunicatorAsk, GoesOnWithAnExcuseOrWhenItHasCome) {
  on_ranks(3, [](HostCommunicator& comm) {
    std::array<double, 1> ones = {1};
    {
      std::optional<LongWork> work;
      if (comm.rank() == 0) work.emplace(comm, "something long");
      comm.sum(ones, "the others");  // rank 0 works when they ask
      if (comm.rank() != 0) comm.ask_or_give_up("the gradients", [] { return false; });
      comm.sum(ones, "the others");
    }
    // Nobody works any more.
    const auto begin = std::chrono::steady_clock::now();
    const auto came = [&] {
      return std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(300);
    };
    if (comm.rank() != 0) comm.ask_or_give_up("the gradients", came);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1500));
  });
}

TEST(HostCommunicatorAsk, EndsTheRunWithoutAnExcuse) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto ask = [](HostCommunicator& comm) {
    comm.at_step(5);
    if (comm.rank() == 1) comm.ask_or_give_up("the gradients", [] { return false; });
    std::this_thread::sleep_for(std::chrono::hours(1));
  };
  EXPECT_EXIT(on_ranks(2, ask), ::testing::ExitedWithCode(7),
              "rank 1: step 5: waited for the gradients for longer than .*; every rank answers:\n"
              "  rank 0 is in step 5, computing");
}

// As within MPI_Init: what does not look at `stopped` is ended with the process.
TEST(HostCommunicatorStart, EndsWhereConnectingDoesNotHearOfAStop) {
  const auto connect = []() -> std::unique_ptr<Messages> {
    std::this_thread::sleep_for(std::chrono::hours(1));
    return nullptr;
  };
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(HostCommunicator(connect, 1, [] { return true; }), ::testing::ExitedWithCode(75),
              "stopped by a signal while the ranks connected");
}

TEST(HostCommunicatorStart, RaisesWhatConnectRaises) {
  const auto connect = []() -> std::unique_ptr<Messages> { fail(Exit::communication, "nobody is there"); };
  EXPECT_THROW(HostCommunicator(connect, 1), Error);
}

}  // namespace
}  // namespace keen
