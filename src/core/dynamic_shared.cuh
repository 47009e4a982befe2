// The shared memory whose size is given at a launch.
#pragma once

namespace keen::cuda {

// Its beginning, aligned to 1024 bytes; the same for every thread of a block.
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char keen_dynamic_shared[];
  return keen_dynamic_shared;
}

}  // namespace keen::cuda
