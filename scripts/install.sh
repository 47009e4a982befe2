#!/usr/bin/env bash
# Installs, on Debian 12, every package that building, testing and the quickstart need. Run again, it changes nothing:
# apt is touched only when something is missing. Run it as yourself: it calls sudo for apt alone. CUDA and NCCL are
# optional, are used where they are found, and are not installed.
set -euo pipefail

packages=(
  # the compiler and the build
  g++ cmake ninja-build make pkg-config ccache git ca-certificates
  # libraries; the CMake package of oneDNN looks for the headers of OpenCL
  nlohmann-json3-dev libfmt-dev libcli11-dev libsentencepiece-dev libdnnl-dev ocl-icd-opencl-dev libxxhash-dev
  # several ranks
  libopenmpi-dev openmpi-bin
  # the corpus of the quickstart
  dict-gcide
)
# Tests and benchmarks; the browser (290 MB) opens the page of `keen compare --html`, iproute2 makes two hosts of one.
test_packages=(libgtest-dev libbenchmark-dev python3 chromium iproute2)

# The fuzzers of scripts/fuzz.sh. Only clang 16 and later know std::source_location.
fuzzing_packages=(clang-16 libclang-rt-16-dev)

tests=true fuzzing=false list=false
for argument in "$@"; do
  case $argument in
    --without-tests) tests=false ;;
    --with-fuzzing) fuzzing=true ;;
    --list) list=true ;;
    -h | --help)
      echo "usage: scripts/install.sh [--without-tests] [--with-fuzzing] [--list]"
      echo "Installs the Debian packages that keen needs; --without-tests leaves out what only its tests need,"
      echo "--with-fuzzing adds the compiler of scripts/fuzz.sh, --list prints the names and changes nothing."
      exit 0
      ;;
    *)
      echo "install: unknown argument \"$argument\"; see scripts/install.sh --help" >&2
      exit 2
      ;;
  esac
done
if $tests; then packages+=("${test_packages[@]}"); fi
if $fuzzing; then packages+=("${fuzzing_packages[@]}"); fi
if $list; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install: this machine has no apt, so nothing can be installed here. keen needs, under whatever names:" >&2
  echo "  ${packages[*]}" >&2
  echo "With these present, run the other scripts with --no-install." >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  # A package of several architectures prints its status once for each.
  status=$(dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null || true)
  grep -qx installed <<<"$status" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "install: all ${#packages[@]} packages are there"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "install: ${#missing[@]} packages are missing, and installing them takes root or sudo. As root, run:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

echo "install: ${#missing[@]} of ${#packages[@]} packages are missing:"
printf '  %s\n' "${missing[@]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "install: failed: $*" >&2
    exit 1
  fi
}
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
# sudo asks for its password on the terminal, once, before the output is put aside.
((${#as_root[@]} == 0)) || sudo -v
# A repository of somebody else that is down is no reason to stop: what counts is whether the packages can be had.
"${apt[@]}" update >"$log" 2>&1 </dev/null || echo "install: apt-get update reported errors; going on" >&2
quietly "${apt[@]}" install --no-install-recommends "${missing[@]}"
echo "install: done"
