// One rank goes the way of many: its collectives run on the device, and leave values as they are.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "comm/nccl_communicator.h"
#include "core/dynamic_library.h"
#include "cuda_test.h"

namespace keen {
namespace {

using namespace keen::testing;

std::unique_ptr<HostCommunicator> host_of_one() {
  return std::make_unique<HostCommunicator>([] { return connect_tcp(TcpPlace(), 60); }, 60);
}

class NcclCuda : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    if (!kNcclBuilt || !DynamicLibrary("libnccl.so.2").found()) GTEST_SKIP() << "there is no NCCL here";
    twins_.emplace();
  }
  static std::unique_ptr<Communicator> one_rank() {
    if constexpr (kNcclBuilt)
      return make_nccl_communicator(host_of_one(), 0);
    else
      fail(Exit::internal, "this build has no NCCL, and its tests are skipped");
  }

  std::optional<Twins> twins_;
};

TEST_F(NcclCuda, OneRankKeepsItsValues) {
  const std::unique_ptr<Communicator> comm = one_rank();
  EXPECT_EQ(comm->size(), 1);
  for (const DType type : {DType::f32, DType::bf16}) {
    const Twin flat = twins_->normal({100'003}, type);
    comm->at_step(1);
    comm->start_sum_slices(twins_->cuda, flat.cuda, "the gradients");
    comm->start_gather_slices(twins_->cuda, flat.cuda, "the weights");
    comm->finish(twins_->cuda);
    EXPECT_TRUE(close(*twins_, flat, 0)) << name_of(type);
  }
  const Twin numbers = twins_->normal({5}, DType::f64);
  comm->sum(twins_->cuda, numbers.cuda, "the loss");
  EXPECT_TRUE(close(*twins_, numbers, 0));
  EXPECT_EQ(comm->bytes_sent(), 0);
}

// What the context's stream wrote before is what is summed, and what it does after `finish` sees the result.
TEST_F(NcclCuda, KeepsTheOrderOfTheStream) {
  const std::unique_ptr<Communicator> comm = one_rank();
  const Twin from = twins_->normal({1 << 22}, DType::f32), flat = twins_->poisoned({1 << 22}, DType::f32),
             to = twins_->poisoned({1 << 22}, DType::f32);
  for (int round = 0; round < 20; ++round) {
    copy(twins_->cuda, flat.cuda, from.cuda);
    comm->start_sum_slices(twins_->cuda, flat.cuda, "the gradients");
    comm->finish(twins_->cuda);
    copy(twins_->cuda, to.cuda, flat.cuda);
  }
  copy(twins_->cpu, to.cpu, from.cpu);
  EXPECT_TRUE(close(*twins_, to, 0));
}

TEST_F(NcclCuda, HostMemoryGoesThroughTheHost) {
  const std::unique_ptr<Communicator> comm = one_rank();
  std::array<double, 2> numbers = {1.5, -2};
  comm->sum(numbers, "the validation loss");
  EXPECT_EQ(numbers, (std::array<double, 2>{1.5, -2}));
  std::string text = "a config";
  comm->broadcast(text, "the config");
  EXPECT_EQ(text, "a config");
}

// Where there is one GPU alone, it may be a rank's own whatever its number is.
TEST_F(NcclCuda, RefusesANumberThatNoGpuHas) {
  if constexpr (kNcclBuilt) {
    const int gpus = cuda::device_count();
    if (gpus == 1) {
      EXPECT_EQ(make_nccl_communicator(host_of_one(), 3)->size(), 1);
      return;
    }
    try {
      make_nccl_communicator(host_of_one(), gpus);
      FAIL() << "there is no GPU of this number";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::device);
      EXPECT_NE(std::string(error.what()).find(fmt::format("rank 0 is number {}", gpus)), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace keen
