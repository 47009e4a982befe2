#!/usr/bin/env bash
# Kills a real run with SIGKILL, 200 times unless told otherwise, a third of them inside a save, and checks after each
# kill that the same command goes on from the newest complete checkpoint, and in the end that nothing differs from a run
# that was never killed. Its last line has the figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  echo "usage: scripts/crash_test.sh [KILLS [SEED]]"
  echo "  KILLS  how many (200)"
  echo "  SEED   of the moments at which it kills (drawn unless given, and printed)"
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
esac
kills=${1:-200} seed=${2:-$RANDOM}
if ! [[ $kills =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]+$ ]] || (($# > 2)); then usage >&2; exit 2; fi

if [[ -f build/CMakeCache.txt ]]; then how=(-S . -B build); else how=(--preset release); fi
cmake "${how[@]}" -DKEEN_TESTS=ON >/dev/null
cmake --build build -j "$(nproc)" --target keen keen_tests_cli
echo "crash_test: $kills kills, seed $seed"
KEEN_CRASH_KILLS=$kills KEEN_CRASH_SEED=$seed OMP_WAIT_POLICY=passive \
  build/tests/keen_tests_cli --gtest_filter='SlowCrashTest.*' --gtest_brief=1
