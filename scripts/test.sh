#!/usr/bin/env bash
# Installs what is missing, builds keen and runs every test that this machine can run: first the optimized build, then
# the fast tests again under the address and undefined-behaviour sanitizers, where an emulator runs the CUDA kernels.
# Where nvcc is found, CMake adds the CUDA code and its tests to the optimized build by itself; tests that need a device
# are skipped without one.
# Run it as yourself, not by sudo, which would leave build folders that are root's: it calls sudo for apt alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  echo "usage: scripts/test.sh [--no-install] [--fast]"
  echo "  --no-install  leave apt alone"
  echo "  --fast        only the optimized build, only the tests that are not labelled slow"
}

install=true fast=false
for argument in "$@"; do
  case $argument in
    --no-install) install=false ;;
    --fast) fast=true ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test: unknown argument \"$argument\"" >&2; usage >&2; exit 2 ;;
  esac
done

started=$SECONDS
heading() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }
jobs=$(nproc)

# A folder that is configured already keeps its generator, so a plain `cmake -B build` is not in the way; nor is the
# quickstart, which leaves the tests and, without a GPU, CUDA out.
build() { # PRESET FOLDER [CMAKE ARGUMENT...]
  local how=(--preset "$1")
  if [[ -f $2/CMakeCache.txt ]]; then how=(-S . -B "$2"); fi
  cmake "${how[@]}" -DKEEN_TESTS=ON "${@:3}" >/dev/null
  cmake --build "$2" -j "$jobs"
}
run_tests() { # FOLDER [CTEST ARGUMENT...]
  ctest --test-dir "$1" -j "$jobs" --output-on-failure --no-tests=error "${@:2}"
}

if $install; then
  heading "Packages"
  scripts/install.sh
fi

heading "Optimized build"
build release build -DKEEN_CUDA=AUTO

if $fast; then
  heading "Tests"
  run_tests build --label-exclude slow
  exit 0
fi

heading "Tests"
run_tests build

heading "Build with sanitizers"
build debug build-debug -DKEEN_CUDA=EMULATE

heading "Fast tests with sanitizers"
run_tests build-debug --label-exclude slow
