#!/usr/bin/env bash
# The one command for a machine with an NVIDIA GPU: builds keen for it, runs every CUDA test and a training step under
# compute-sanitizer, trains on the card and on the CPU and compares, and measures, side by side with PyTorch where Python
# has it. Writes one Markdown report, anew after every stage, and prints it at the end; its last table has a line for
# each stage. A stage that fails or outlasts its time does not stop the others; the exit code is 1 if any did.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
self=scripts/gpu_check.sh

usage() {
  cat <<'TEXT'
usage: scripts/gpu_check.sh [--quick] [--within SECONDS] [--deps DIR] [--build DIR] [--only STAGES] REPORT.md
       scripts/gpu_check.sh --bundle DIR
  REPORT.md      where the report goes; it is printed as well
  --quick        fewer tests and shorter measurements
  --within N     ends after N seconds: stages are cut short, and those that are left get no turn
  --deps DIR     the libraries come from the Debian packages in DIR, which --bundle has put there
  --build DIR    builds and works in DIR (build-gpu)
  --only STAGES  only these stages, separated by commas: build loss steps pytorch tests sanitizer resume repeat kernels
                 (the order in which they run: what is worth most comes first); what others found before stays in the
                 report. Where nothing is built yet, it is built first
  --emulate      the CUDA emulator in the place of a GPU: tries this script, measures nothing
  --bundle DIR   downloads the Debian packages that keen is built from into DIR (about 10 MB), for a machine without a
                 package registry, and checks nothing
On a machine without a package registry: run --bundle elsewhere, copy keen's sources and DIR over, and give --deps DIR.
Packages that were already extracted are found by CMAKE_PREFIX_PATH, PKG_CONFIG_PATH and LD_LIBRARY_PATH, as always.
CUDNN_PATH names a folder with cuDNN's include/ and lib/ (found by itself in Python's packages).
TEXT
}

quick=false emulate=false deps="" build=build-gpu only="" report="" bundle="" stage="" within=""
while (($# > 0)); do
  case $1 in
    --quick) quick=true ;;
    --emulate) emulate=true ;;
    --deps | --build | --only | --bundle | --stage | --within)
      (($# >= 2)) || { echo "gpu_check: $1 takes an argument" >&2; exit 2; }
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "gpu_check: unknown argument \"$1\"" >&2; usage >&2; exit 2 ;;
    *) report=$1 ;;
  esac
  shift
done

# Everything that keen links to and that a C++ compiler does not bring.
libraries=(nlohmann-json3-dev libfmt-dev libcli11-dev libsentencepiece-dev libdnnl-dev ocl-icd-opencl-dev libxxhash-dev
  libgtest-dev libbenchmark-dev pkg-config)

if [[ -n $bundle ]]; then
  mkdir -p "$bundle"
  cd "$bundle"
  # With all that they depend on, but for what belongs to the compiler and the system.
  mapfile -t packages < <(apt-cache depends --recurse --no-pre-depends --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances "${libraries[@]}" | grep '^[a-z]' | sort -u |
    grep -vE '^(gcc-.*-base|libc6|libgcc-s1|libgomp1|libstdc\+\+6)$')
  apt-get -q download "${packages[@]}"
  echo "gpu_check: ${#packages[@]} packages, $(du -sh . | cut -f1), in $bundle"
  exit 0
fi
[[ -n $report ]] || { usage >&2; exit 2; }
[[ -z $within || $within =~ ^[0-9]+$ ]] || { echo "gpu_check: --within takes seconds, not \"$within\"" >&2; exit 2; }

mkdir -p "$build"
build=$(cd "$build" && pwd)
work=$build/check
device=cuda
keen=$build/keen
python=$(command -v python3)

# The toolkit's own programs need not be in PATH.
export PATH=$PATH:/usr/local/cuda/bin
# Where the libraries of a bundle lie, and cuDNN, which PyTorch's wheels have.
if [[ -n $deps ]]; then
  prefix=$build/prefix
  export PKG_CONFIG_PATH=$prefix/usr/lib/x86_64-linux-gnu/pkgconfig:$prefix/usr/share/pkgconfig
  export LD_LIBRARY_PATH=$prefix/usr/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}
  export PATH=$prefix/usr/bin:$PATH
fi
if [[ -z ${CUDNN_PATH:-} && -n $python ]]; then
  CUDNN_PATH=$("$python" -c 'import nvidia.cudnn; print(list(nvidia.cudnn.__path__)[0])' 2>/dev/null || true)
fi
if [[ -n ${CUDNN_PATH:-} ]]; then
  export CUDNN_PATH LD_LIBRARY_PATH=$CUDNN_PATH/lib:${LD_LIBRARY_PATH:-}
fi
# CUDA's own libraries may be no more than Python's packages, too.
if [[ -n $python ]]; then
  cublas=$("$python" -c 'import glob, nvidia
print(next(iter(sorted(f for p in nvidia.__path__ for f in glob.glob(p + "/**/libcublasLt.so.*", recursive=True))), ""))' \
    2>/dev/null || true)
  [[ -z $cublas ]] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}:${cublas%/*}"
fi

note() { echo "$*" >>"$work/$stage.note"; }       # a few words for the table of checks
table() { cat >>"$work/$stage.md"; }              # Markdown for the part below it
skip() { note "$*"; exit 77; }

stage_build() {
  local options=(-S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DKEEN_TESTS=ON -DKEEN_WARNINGS_AS_ERRORS=OFF)
  if $emulate; then
    options+=(-DKEEN_CUDA=EMULATE)
  else
    options+=(-DKEEN_CUDA=ON "-DCUDNN_PATH=${CUDNN_PATH:-}")
  fi
  command -v ninja >/dev/null || options[5]="Unix Makefiles"
  if [[ -n $deps ]]; then
    rm -rf "$prefix"
    mkdir -p "$prefix"
    local package
    for package in "$deps"/*.deb; do dpkg -x "$package" "$prefix"; done
    # Their .pc files speak of /usr.
    find "$prefix" -name '*.pc' -exec sed -i "s|^\(prefix *= *\)/usr|\1$prefix/usr|; s|=/usr/|=$prefix/usr/|" {} +
    options+=("-DCMAKE_PREFIX_PATH=$prefix/usr" "-DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu")
  fi
  cmake "${options[@]}"
  # What fails to compile is no reason to leave out the rest.
  local all=(-k 0) failed=0
  command -v ninja >/dev/null || all=(-k)
  cmake --build "$build" -j "$(nproc)" -- "${all[@]}" || failed=1
  note "$(grep -m1 -o 'CUDA [0-9.]* for .*' "$work/build.log" || echo "emulated")"
  return $failed
}

stage_tests() {
  # What runs on the device: by the names of the suites. Slow ones too, unless in a hurry.
  local choice=(-R 'Cuda|cudnn\.') out=$work/ctest.txt
  if $quick || $emulate; then choice+=(-LE slow); fi
  local failed=0
  ctest --test-dir "$build" -j "$($emulate && nproc || echo 4)" --output-on-failure --no-tests=error --timeout 300 \
    "${choice[@]}" | tee "$out" || failed=1
  local skipped
  skipped=$(grep -c '[*]Skipped' "$out" || true)
  note "$(grep -E 'tests passed' "$out" | head -1); $skipped skipped"
  return $failed
}

# A corpus that is always at hand: keen's own text, and a vocabulary of it.
make_data() {
  [[ -s $work/data/dataset.json ]] && return
  mkdir -p "$work/data"
  find README.md src tests data -name '*.md' -o -name '*.h' -o -name '*.cpp' | LC_ALL=C sort |
    while read -r file; do cat "$file"; printf '\n\n'; done >"$work/data/text.txt"
  "$keen" tokenize vocab "$work/data/text.txt" --documents blank-line --size 768 --out "$work/data/tokenizer.model"
  "$keen" tokenize encode "$work/data/text.txt" --documents blank-line --model "$work/data/tokenizer.model" \
    --out "$work/data" --validation 0.02 --force
}

# train NAME STEPS [KEY=VALUE...]: a small GPT with SSMax; heads of 64 so that every attention kernel takes it.
train() {
  local name=$1 steps=$2 settings=()
  shift 2
  local setting
  for setting in "$@"; do settings+=(--set "$setting"); done
  # The emulator takes seconds for what a card does in microseconds.
  $emulate && settings+=(--set model.context=32 --set model.layers=1 --set 'model.attention=ssmax'
    --set batch.sequences=2 --set batch.micro_sequences=1)
  mkdir -p "$work/runs"
  cat >"$work/tiny.json" <<TEXT
{
  "name": "gpu-check",
  "model": {"vocab_size": 768, "context": 128, "layers": 3, "width": 128, "heads": 2, "mlp_width": 384,
            "attention": ["ssmax", "softmax", "ssmax_bias"]},
  "data": {"train": "$work/data/train_*.bin", "validation": "$work/data/val_*.bin"},
  "batch": {"sequences": 8, "micro_sequences": 4},
  "optimizer": {"lr": 1e-3},
  "schedule": {"steps": 200, "warmup_steps": 20},
  "evaluate": {"every": 0},
  "checkpoint": {"every": 100000},
  "log": {"every": 50}
}
TEXT
  "$keen" train "$work/tiny.json" --run-dir "$work/runs/$name" --set "schedule.stop_after=$steps" ${settings[@]+"${settings[@]}"}
}
fresh() { rm -rf "${@/#/$work/runs/}"; }
steps() { $emulate && echo "$2" || echo "$1"; }

stage_sanitizer() {
  make_data
  $emulate && skip "not with the emulator"
  local tool tools=(memcheck racecheck)
  $quick && tools=(memcheck)
  command -v compute-sanitizer >/dev/null || skip "compute-sanitizer is not in PATH"
  for tool in "${tools[@]}"; do
    fresh "sanitizer"
    # A kernel that goes wrong ends the program with its own code, and the tool with 1.
    if ! keen="compute-sanitizer --tool $tool --error-exitcode 1 --print-limit 20 $keen" train_with_words sanitizer 2
    then
      # Under some virtual machines the tool starts on no device at all.
      ! grep -q 'Device not supported' "$work/sanitizer.log" || skip "compute-sanitizer refuses this machine's GPU"
      return 1
    fi
    note "$tool clean;"
  done
}
train_with_words() { # as train, where $keen is a command of several words
  local words program=$work/sanitized
  words=$keen
  printf '#!/usr/bin/env bash\nexec %s "$@"\n' "$words" >"$program"
  chmod +x "$program"
  keen=$program train "$@" device=cuda attention_path=flash precision=bf16
}

stage_loss() {
  make_data
  local n
  n=$(steps 200 6)
  fresh cpu cuda-fp32 cuda-bf16
  train cpu "$n" device=cpu precision=fp32
  train cuda-fp32 "$n" device=$device precision=fp32
  train cuda-bf16 "$n" device=$device precision=bf16
  note "$("$python" scripts/gpu_report.py losses "$work"/runs/{cpu,cuda-fp32} --below 1e-3);"
  note "$("$python" scripts/gpu_report.py losses "$work"/runs/{cpu,cuda-bf16} --below 0.02)"
}

stage_resume() {
  make_data
  local n half
  n=$(steps 20 4) half=$(steps 10 2)
  fresh whole to-cpu to-cuda
  train whole "$n" device=cpu precision=fp32
  train to-cpu "$half" device=$device precision=fp32
  train to-cpu "$n" device=cpu precision=fp32
  train to-cuda "$half" device=cpu precision=fp32
  train to-cuda "$n" device=$device precision=fp32
  note "$("$python" scripts/gpu_report.py losses "$work"/runs/{whole,to-cpu} --below 1e-3);"
  note "$("$python" scripts/gpu_report.py losses "$work"/runs/{whole,to-cuda} --below 1e-3)"
}

# Twice the same: weights and moments, byte for byte.
stage_repeat() {
  make_data
  local n kind name
  n=$(steps 20 3)
  for kind in "fp32 flash" "bf16 flash" "bf16 auto" "bf16 reference"; do
    read -r precision path <<<"$kind"
    for name in once again; do
      fresh "$name"
      train "$name" "$n" device=$device "precision=$precision" "attention_path=$path" deterministic=true
    done
    for name in model optimizer; do
      cmp "$work"/runs/{once,again}/checkpoints/step_*"$n"/$name.safetensors
    done
    note "$precision $path same bits;"
  done
}

# What has been measured so far, beside what keen is meant to reach: the report's first table.
goals() { "$python" scripts/gpu_report.py goals "$work/steps" "$work/pytorch.jsonl" >"$work/goals.md"; }

stage_steps() {
  $emulate && skip "not with the emulator"
  [[ -x $build/tests/bench/keen_train_step_bench ]] || skip "Google Benchmark is missing"
  local filter='^cuda/' name names failed=0 program=$build/tests/bench/keen_train_step_bench
  $quick && filter='^cuda/(124m_b64|1558m_b16|rope162m_b64)_t1024/bf16/[a-z]*/auto/iterations'
  rm -rf "$work/steps"
  mkdir "$work/steps"
  # Each by itself: what was measured before the time is up is not lost, and none disturbs the others.
  mapfile -t names < <("$program" --benchmark_list_tests "--benchmark_filter=$filter")
  ((${#names[@]} > 0)) || { note "no benchmark of this name: is there a GPU?"; return 1; }
  for name in "${names[@]}"; do
    "$program" "--benchmark_filter=^$name\$" --benchmark_format=json >"$work/steps/${name//\//_}.json" || failed=1
    "$python" scripts/gpu_report.py steps "$work/steps" >"$work/$stage.md"
    goals || failed=1
  done
  note "${#names[@]} shapes"
  return $failed
}

stage_kernels() {
  $emulate && skip "not with the emulator"
  [[ -x $build/tests/bench/keen_cuda_bench ]] || skip "Google Benchmark is missing"
  local filter=.
  $quick && filter='124m|attention'
  "$build/tests/bench/keen_cuda_bench" "--benchmark_filter=$filter" --benchmark_format=json >"$work/kernels.json" ||
    return 1
  "$python" scripts/gpu_report.py kernels "$work/kernels.json" | table
}

stage_pytorch() {
  $emulate && skip "not with the emulator"
  "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
    skip "Python has no PyTorch that sees the GPU"
  local out=$work/pytorch.jsonl failed=0
  : >"$out"
  measure_pytorch() {
    "$python" scripts/bench_pytorch.py --device cuda --precision bf16 --mode compile --warmup 5 --steps 20 --json "$@" \
      >>"$out" || failed=1
    "$python" scripts/gpu_report.py pytorch "$work/steps" "$out" >"$work/$stage.md" || failed=1
    goals || failed=1
  }
  measure_pytorch --model gpt2-124m --attention softmax --sequences 64 --vocab-size 50304
  measure_pytorch --model gpt2-1558m --attention softmax --sequences 16 --vocab-size 50304
  if ! $quick; then
    measure_pytorch --model gpt2-124m --attention softmax --sequences 32 --vocab-size 50304
    measure_pytorch --model gpt2-124m --attention ssmax --sequences 64 --vocab-size 50304
    measure_pytorch --model gpt2-1558m --attention softmax --sequences 8 --vocab-size 50304
  fi
  return $failed
}

if [[ -n $stage ]]; then
  "stage_$stage"
  exit
fi

# Name, and seconds that it may take: a full run, a quick one.
stages=("build 1200 1200" "loss 300 120" "steps 900 300" "pytorch 900 300" "tests 900 420" "sanitizer 600 240"
  "resume 200 120" "repeat 300 150" "kernels 400 150")
[[ -n $only ]] || rm -rf "$work"
mkdir -p "$work"
[[ -z $only || -x $keen || ,$only, == *,build,* ]] || only=build,$only
options=()
$quick && options+=(--quick)
$emulate && options+=(--emulate)

# Everything known so far: measurements first, and at the end one line a stage.
write_report() {
  local name entry
  if $emulate; then
    echo "# keen on the CUDA emulator: no GPU, no measurement"
  else
    echo "# keen on $(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 || true)"
  fi
  echo
  local driver
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1 || true)
  echo "Driver ${driver:-none}, $(nvcc --version 2>/dev/null | grep -o 'release [0-9.]*' || echo 'no nvcc')," \
    "keen $(git describe --always --dirty 2>/dev/null || echo unknown), $(LC_ALL=C date -u '+%-d %B %Y')$($quick && echo ', quick')."
  for entry in goals "${stages[@]}"; do
    name=${entry%% *}
    [[ ! -s $work/$name.md ]] || { echo; cat "$work/$name.md"; }
  done
  echo
  echo "| check | result | time | |"
  echo "| --- | --- | --- | --- |"
  for entry in "${stages[@]}"; do cat "$work/${entry%% *}.row" 2>/dev/null || true; done
}

failures=0 running=""
trap '[[ -z $running ]] || kill "$running" 2>/dev/null; exit 75' INT TERM
for entry in "${stages[@]}"; do
  read -r name full_s quick_s <<<"$entry"
  [[ -z $only || ,$only, == *,$name,* ]] || continue
  rm -f "$work/$name".{log,note,md,row}
  limit_s=$($quick && echo "$quick_s" || echo "$full_s")
  left_s=$((${within:-1000000} - SECONDS))
  if ((limit_s > left_s)); then limit_s=$left_s; fi
  started=$SECONDS
  status=0
  if ((limit_s < 1)); then
    status=late
  else
    printf '== %s (at most %d s)\n' "$name" "$limit_s"
    timeout --kill-after=20 "$limit_s" bash "$self" ${options[@]+"${options[@]}"} --deps "$deps" --build "$build" \
      --stage "$name" "$report" >"$work/$name.log" 2>&1 </dev/null &
    running=$! # a process group of its own, which a Ctrl-C at this script does not reach
    wait "$running" || status=$?
    running=""
  fi
  case $status in
    0) result=passed ;;
    late) result="not reached" ;;
    77) result=skipped ;;
    124 | 137) result="**out of time**" ;;
    *) result="**failed**" ;;
  esac
  case $status in
    0 | late | 77) ;;
    *) failures=$((failures + 1)); tail -n 25 "$work/$name.log" ;;
  esac
  words=""
  [[ ! -s $work/$name.note ]] || words=$(tr '\n' ' ' <"$work/$name.note")
  echo "| $name | $result | $((SECONDS - started)) s | $words |" | tee "$work/$name.row"
  write_report >"$work/report.md"
  cp "$work/report.md" "$report"
  # Without a program there is nothing to check.
  if [[ $name == build && ! -x $keen ]]; then break; fi
done

echo
if ((failures > 0)); then
  echo "gpu_check: $failures of the checks failed; their output is in $work/*.log"
else
  echo "gpu_check: nothing failed"
fi
echo
cat "$report"
((failures == 0))
