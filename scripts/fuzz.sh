#!/usr/bin/env bash
# Fuzzes what reads files of others: builds the targets of tests/fuzz with clang, libFuzzer and the address and
# undefined-behaviour sanitizers, and lets each look for an input that breaks its promise, from the seeds in
# tests/fuzz/corpus and from what earlier calls have found. Ends with a table, and with 1 where anything was found.
# New inputs stay in build-fuzz/corpus; one that shows a defect belongs into tests/fuzz/corpus/TARGET with its repair.
# Run it as yourself: it calls sudo for apt alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

targets=()
for source in tests/fuzz/*.cpp; do
  name=$(basename "$source" .cpp)
  if [[ $name != replay ]]; then targets+=("$name"); fi
done

usage() {
  echo "usage: scripts/fuzz.sh [--minutes M] [--no-install] [TARGET...]"
  echo "  --minutes M   how long each target runs, 5 by default; may be a fraction"
  echo "  --no-install  leave apt alone"
  echo "  TARGET        of ${targets[*]}; all of them by default"
}

minutes=5 install=true chosen=()
while (($# > 0)); do
  case $1 in
    --minutes)
      if (($# < 2)); then
        echo "fuzz: --minutes: should be followed by a number" >&2
        usage >&2
        exit 2
      fi
      minutes=$2
      shift
      ;;
    --no-install) install=false ;;
    -h | --help) usage; exit 0 ;;
    *)
      if [[ ! " ${targets[*]} " == *" $1 "* ]]; then
        echo "fuzz: unknown target or argument \"$1\"" >&2
        usage >&2
        exit 2
      fi
      chosen+=("$1")
      ;;
  esac
  shift
done
seconds=$(awk -v m="$minutes" 'BEGIN { if (m !~ /^[0-9]*\.?[0-9]+$/ || m * 60 < 1) exit 1; printf "%d", m * 60 }') || {
  echo "fuzz: --minutes $minutes: should be a number, at least a sixtieth" >&2
  exit 2
}
if ((${#chosen[@]} == 0)); then chosen=("${targets[@]}"); fi

if $install; then scripts/install.sh --with-fuzzing; fi
folder=build-fuzz
if [[ -f $folder/CMakeCache.txt ]]; then cmake -S . -B "$folder" >/dev/null; else cmake --preset fuzz >/dev/null; fi
nice cmake --build "$folder" -j "$(nproc)" --target "${chosen[@]/#/keen_fuzz_}"

# The last number that libFuzzer said after a word.
last_number() { grep -aoE "$1 [0-9]+" "$2" | tail -n 1 | awk '{ print $2 }'; }

table=$(printf '%-12s %12s %9s %8s  %s' target executions coverage inputs findings)
status=0
for target in "${chosen[@]}"; do
  program=$folder/tests/fuzz/keen_fuzz_$target corpus=$folder/corpus/$target found=$folder/findings/$target
  log=$folder/$target.log
  mkdir -p "$corpus" "$found"
  echo "fuzz: $target for $seconds s"
  marker=$(mktemp)
  # It ends with an error at the first finding; more than 10 s for an input, or 2 GiB, are findings too.
  nice "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
    -dict=tests/fuzz/json.dict -artifact_prefix="$found/" "$corpus" "tests/fuzz/corpus/$target" >"$log" 2>&1 || status=1
  findings=$(find "$found" -type f -newer "$marker" | sort)
  rm -f "$marker"
  executions=$(grep -aoE 'number_of_executed_units: [0-9]+' "$log" | awk '{ print $2 }' || true)
  coverage=$(last_number cov: "$log" || true)
  table+=$'\n'$(printf '%-12s %12s %9s %8s  %s' "$target" "${executions:-?}" "${coverage:-?}" \
    "$(find "$corpus" -type f | wc -l)" "$(wc -w <<<"$findings")")
  for finding in $findings; do
    status=1
    tail -n 40 "$log"
    table+=$'\n'"  replay: $program $finding"
  done
done
echo
echo "$table"
exit "$status"
