#!/usr/bin/env bash
# Builds build/keen, and only it: the tests of a folder that was configured for them stay as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ! -f build/CMakeCache.txt ]]; then
  # Compiling CUDA takes minutes, which only a GPU repays.
  if nvidia-smi --list-gpus >/dev/null 2>&1; then cuda=AUTO; else cuda=OFF; fi
  cmake --preset release -DKEEN_TESTS=OFF -DKEEN_CUDA=$cuda >/dev/null
fi
cmake --build build --target keen -j "$(nproc)"
