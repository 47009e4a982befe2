// The emulator's twin of core/dynamic_shared.cuh.
#pragma once

#include <cuda_runtime.h>

namespace keen::cuda {

inline unsigned char* dynamic_shared() { return cuda_emulator::dynamic_shared(); }

}  // namespace keen::cuda
