#include "comm/communicator.h"

#include <cstdlib>

#include "core/build.h"

namespace keen {

namespace {

class OneRank final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void start_sum(Tensor) override {}
  void finish_sums() override {}
  void sum(std::span<double>) override {}
};

}  // namespace

std::unique_ptr<Communicator> make_communicator() {
  // SLURM_NTASKS alone is also set in an allocation's shell; SLURM_STEP_NUM_TASKS is set by srun only.
  for (const char* name : {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && std::atoi(value) > 1 && !kMpiBuilt)
      fail(Exit::communication,
           "{}={}: this build of keen trains on one rank only; start it without a launcher, or unset {}",
           name, value, name);
  }
  return std::make_unique<OneRank>();
}

}  // namespace keen
