// A process that no launcher started is the only rank of a run of its own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "comm/messages.h"
#include "core/build.h"

namespace keen {
namespace {

// As where mpirun no longer reads what its ranks write: who writes holds the stream for as long.
TEST(MpiMessages, AbortEndsBesideAFullPipe) {
  if constexpr (kMpiBuilt) {
    const auto abort_beside_a_writer = [] {
      alarm(60);
      const std::unique_ptr<Messages> messages = connect_mpi();
      std::array<int, 2> ends;
      if (pipe(ends.data()) != 0 || dup2(ends[1], STDOUT_FILENO) < 0) _exit(1);
      std::thread([] {
        for (;;) std::fputs("a line of a table\n", stdout);
      }).detach();
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      messages->abort(7);
    };
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_EXIT(abort_beside_a_writer(), ::testing::ExitedWithCode(7), "");
  } else {
    GTEST_SKIP() << "this build has no MPI";
  }
}

}  // namespace
}  // namespace keen
