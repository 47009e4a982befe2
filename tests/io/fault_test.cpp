#include "io/fault.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>
#include <vector>

#include "core/check.h"

namespace keen {
namespace {

class FaultTest : public ::testing::Test {
 protected:
  ~FaultTest() override { fault::arm(""); }
};

volatile std::sig_atomic_t received = 0;

TEST_F(FaultTest, WithoutAPlanAPlaceCostsOneLoad) {
  fault::arm("");
  EXPECT_EQ(fault::armed.load(), fault::Armed::no) << "which is all that a place looks at";
  fault::arm("save:kill:2");
  EXPECT_EQ(fault::armed.load(), fault::Armed::yes);
}

TEST_F(FaultTest, AMomentSendsItsSignal) {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const auto before = std::signal(signal, [](int number) { received = number; });
    received = 0;
    fault::arm(signal == SIGTERM ? "data:SIGTERM:2" : signal == SIGINT ? "data:SIGINT:2" : "data:SIGUSR1:2");
    fault::moment("forward");
    fault::moment("data");
    EXPECT_EQ(received, 0);
    fault::moment("data");
    EXPECT_EQ(received, signal) << "at once, and in the same thread";
    std::signal(signal, before);
  }
}

TEST_F(FaultTest, NumbersAreSpoiltOnce) {
  std::vector<float> numbers = {1, 2};
  Tensor x;
  x.data = reinterpret_cast<std::byte*>(numbers.data());
  x.dtype = DType::f32;
  x.shape = {2};
  fault::spoil("gradients", x);
  fault::arm("gradients:nan:2");
  fault::spoil("gradients", x);
  fault::spoil("loss", x);
  EXPECT_EQ(numbers, (std::vector<float>{1, 2}));
  fault::spoil("gradients", x);
  EXPECT_TRUE(std::isnan(numbers[0]));
  EXPECT_EQ(numbers[1], 2);
  numbers[0] = 1;
  fault::spoil("gradients", x);
  EXPECT_EQ(numbers[0], 1);
}

TEST_F(FaultTest, ASlowCallKeepsNoOtherThreadWaiting) {
  fault::arm("fsync:slow:1+");
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([] { fault::next("fsync", "a"); });
  for (std::thread& thread : threads) thread.join();
  const auto taken = std::chrono::steady_clock::now() - start;
  EXPECT_GE(taken, std::chrono::milliseconds(100));
  EXPECT_LT(taken, std::chrono::milliseconds(600)) << "8 of them, one after the other, are 800";
}

TEST_F(FaultTest, CallsOfSeveralThreadsAreCountedTogether) {
  fault::arm("write:EIO:1000");
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int call = 0; call < 500; ++call) failed += fault::next("write", "a").error != 0 ? 1 : 0;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 1);
}

}  // namespace
}  // namespace keen
