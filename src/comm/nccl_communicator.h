// Collectives of tensors in the memory of CUDA devices, by NCCL: one device a rank.
#pragma once

#include <memory>

#include "comm/host_communicator.h"

namespace keen {

// Sums and gathers tensors on CUDA by NCCL, in a stream of its own; what lies in host memory goes through
// `host`. All ranks call it together, before anything is allocated on a device and from the thread that
// trains: the GPU of this rank becomes the current one of that thread. That is number `local_rank` of those
// that the process sees, or the only one, where a launcher shows each rank its own.
//
// A thread watches what was begun. When a collective that this rank's device has reached takes longer than
// the host's ranks may wait for each other and they have no excuse (see LongWork), or NCCL reports an error,
// it says so and ends the run with exit code 7.
//
// Fails with Exit::device where a host has fewer GPUs than ranks, two ranks have the same GPU, or the library
// of NCCL is missing, and with Exit::communication where NCCL cannot connect the ranks. Of several ranks none
// is left waiting then: the error is printed and all of them end. Of one rank it is raised.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<HostCommunicator> host, int local_rank);

}  // namespace keen
