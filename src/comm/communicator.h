// How ranks speak to each other: the one virtual class, with a handful of calls a step. One rank needs none
// of it.
#pragma once

#include <memory>
#include <span>

#include "core/tensor.h"

namespace keen {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Begins to add a bucket of gradients over all ranks, in place, and returns while that goes on; the tensor
  // may not be touched before `finish_sums`, which waits for every sum begun.
  virtual void start_sum(Tensor bucket) = 0;
  virtual void finish_sums() = 0;
  // Adds a few host numbers over all ranks; every rank has the sums when it returns.
  virtual void sum(std::span<double> values) = 0;
};

// The communicator that the environment asks for. As one of several ranks of a launcher (mpirun, srun, or
// WORLD_SIZE) it raises Exit::communication when this build has no backend for them.
std::unique_ptr<Communicator> make_communicator();

}  // namespace keen
