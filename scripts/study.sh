#!/usr/bin/env bash
# The paper's study of softmax and SSMax in small: trains its variants a to f on text and on the recall task, teaches the
# text models to find needles, evaluates all of them within and far beyond their training context, and writes one page,
# one summary and its figures. What is finished is not done again, and what was interrupted goes on: run it again at will.
#
#   a  softmax                      e    SSMax swapped into a after its end, and a twentieth of the steps more
#   b  SSMax                        f80  SSMax swapped into a at 80 % of its steps (f90, f95: at 90, 95 %)
#   c  SSMax with s = 1, fixed      g    as f80, from s = 0 and b = 1: the gentlest swap
#   d  SSMax with b                 h    as e, but softmax stays: what the steps alone do
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
usage: scripts/study.sh [--quick] [--scale cpu|paper] [--report] [--print] [--no-install]
  --quick        one seed and few steps, in less than half an hour on two cores: to see the whole of it
  --scale paper  the paper's model and its context, for GPUs; data/web must hold text that was encoded with a
                 SentencePiece vocabulary of 50,257 pieces (data/README.md; GPT-2's ids cannot be asked for needles)
  --report       only the page and the summary, from what there is so far
  --print        print the commands and run none
  --no-install   leave apt alone
Runs go to runs/study and results to data/study; with --quick or --scale paper to runs/study-quick, runs/study-paper.
END
}

scale=cpu seeds=(1 2 3) report_only=false print=false install=true
while (($#)); do
  case $1 in
    --quick) scale=quick ;;
    --scale)
      (($# > 1)) || { echo "study: --scale wants cpu or paper" >&2; exit 2; }
      scale=$2
      shift ;;
    --report) report_only=true ;;
    --print) print=true ;;
    --no-install) install=false ;;
    -h | --help) usage; exit 0 ;;
    *) echo "study: unknown argument \"$1\"" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

keen=build/keen
case $scale in
  cpu | quick)
    text=configs/study-text.json recall=configs/recall-softmax.json needles=configs/quickstart-needle.json
    data=data/gcide context=256 needle_windows=(--windows 8000)
    text_steps=1000 recall_steps=600 needle_steps=1500
    swap_lr=2e-4 # a tenth of the highest
    runs=runs/study results=data/study
    long=4096 contexts=256,512,1024,2048 score_context=1024 trials=20
    if [[ $scale == quick ]]; then
      seeds=(1) text_steps=200 recall_steps=400 needle_steps=200 trials=4
      runs=runs/study-quick results=runs/study-quick/results
    fi ;;
  paper)
    text=configs/paper-162m-a.json recall="" needles=configs/paper-162m-needle.json
    data=data/web context=1024 needle_windows=(--windows 12800 --validation-windows 256)
    text_steps=10000 needle_steps=1000 swap_lr=6e-5
    runs=runs/study-paper results=runs/study-paper/results
    long=20000 contexts=1024,2048,4096,8192,16384 score_context=8000 trials=100 ;;
  *) echo "study: --scale is cpu or paper, not \"$scale\"" >&2; exit 2 ;;
esac
theta=500000 # 50 times that of training, as the paper reads beyond the training context

tell_how_to_go_on() { echo "study: stopped; run it again to go on from there" >&2; }
trap tell_how_to_go_on ERR
trap 'tell_how_to_go_on; exit 75' INT TERM
run() { if $print; then printf '%q ' "$@"; echo; else "$@"; fi; }

# --- How things are done -------------------------------------------------------------------------------------------

# train RUN CONFIG OPTION...
train() {
  local name=$1 config=$2
  shift 2
  $print || printf '\n== Train %s\n' "$name"
  run "$keen" train "$config" --run-dir "$runs/$name" --set name="${name//\//-}" "$@"
}

# The checkpoint of the first softmax run of a part at a percentage of its steps.
parent() { printf '%s/%s/a-1/checkpoints/step_%08d' "$runs" "$1" $(($2 * $3 / 100)); }

# Of a variant by its letter; e and f80 to f95 are SSMax as b is.
attention_of() { case $1 in a) echo softmax ;; c) echo ssmax_fixed ;; d) echo ssmax_bias ;; *) echo ssmax ;; esac; }

# variants PART CONFIG STEPS: a to h.
variants() {
  local part=$1 config=$2 steps=$3 seed variant percent
  local of=(--set schedule.steps="$steps"
    --set "checkpoint.keep_steps=[$((steps * 80 / 100)),$((steps * 90 / 100)),$((steps * 95 / 100))]")
  local forked=("${of[@]}" --set seed=1 --set init.optimizer=keep --set init.step=keep)
  for seed in "${seeds[@]}"; do
    for variant in a b; do
      train "$part/$variant-$seed" "$config" "${of[@]}" --set seed="$seed" --set model.attention="$(attention_of $variant)"
    done
  done
  for variant in c d; do
    train "$part/$variant-1" "$config" "${of[@]}" --set seed=1 --set model.attention="$(attention_of $variant)"
  done
  local more=(--init-from "$runs/$part/a-1" --set seed=1 --set init.optimizer=keep --set init.step=reset
    --set optimizer.lr="$swap_lr" --set schedule.kind=constant --set schedule.steps=$((steps / 20))
    --set schedule.warmup_steps=$((steps / 200)))
  train "$part/e-1" "$config" "${more[@]}" --set model.attention=ssmax
  train "$part/h-1" "$config" "${more[@]}" --set model.attention=softmax
  for percent in 80 90 95; do
    train "$part/f$percent-1" "$config" --init-from "$(parent "$part" "$steps" "$percent")" "${forked[@]}" \
      --set model.attention=ssmax
  done
  train "$part/g-1" "$config" --init-from "$(parent "$part" "$steps" 80)" "${forked[@]}" \
    --set 'model.attention={"kind": "ssmax_bias", "s": 0, "b": 1}'
}

# The runs of a part that started from nothing, and the forks with their parent.
trained() {
  local variant seed
  for variant in a b; do
    for seed in "${seeds[@]}"; do echo "$runs/$1/$variant-$seed"; done
  done
  printf '%s\n' "$runs/$1/c-1" "$runs/$1/d-1"
}
swapped() {
  local variant
  for variant in a e h f80 f90 f95 g; do echo "$runs/$1/$variant-1"; done
}
all() { { trained "$1" && swapped "$1"; } | awk '!seen[$0]++'; }

# ask RESULT COMMAND ARGUMENT...: what the command prints as JSON, kept as RESULT.json unless it is there already and
# younger than the runs that are asked.
ask() {
  local name=$1 result=$results/$1.json argument fresh=true
  shift
  if $print; then
    run "$keen" "$@" --json
    return
  fi
  for argument in "$@"; do
    if [[ $argument == "$runs"/* && -d $argument && ! $result -nt $argument/metrics.jsonl ]]; then fresh=false; fi
  done
  if [[ -s $result ]] && $fresh; then return; fi
  printf '\n== %s of %s\n' "$1" "$name"
  "$keen" "$@" --json >"$runs/$name.json.part"
  mv "$runs/$name.json.part" "$result"
}

# The page and the summary, from what there is.
report() {
  local figures=() name
  if [[ $scale != paper ]]; then
    run "$keen" compare "${recalls[@]}" --svg "$runs/recall-figures"
    for name in training-loss learned-s; do run cp "$runs/recall-figures/$name.svg" "$results/recall-$name.svg"; done
  fi
  for name in recall-training-loss recall-learned-s recall-{trained,swapped}{,-theta} rotary{,-theta} \
    text-{trained,swapped}{,-theta} needle{,-theta} needle-scores{,-theta}; do
    if $print || [[ -s $results/$name.svg ]]; then figures+=(--figure "$results/$name.svg"); fi
  done
  run "$keen" compare "${texts[@]}" --html "$runs/report.html" "${figures[@]}" --svg "$runs/text-figures"
  for name in training-loss learned-s; do run cp "$runs/text-figures/$name.svg" "$results/text-$name.svg"; done
  run scripts/study_summary.py "$runs" "$results"
  $print || printf '\nThe summary: %s\nThe page:    file://%s/%s\n' "$results/README.md" "$PWD" "$runs/report.html"
}

# --- The study -----------------------------------------------------------------------------------------------------

mapfile -t texts < <(all text)
mapfile -t recalls < <(all recall)
if $report_only; then
  report
  exit
fi

if ! $print; then
  if $install; then scripts/install.sh --without-tests; fi
  scripts/build_keen.sh
  mkdir -p "$results" "$runs"
fi

# Data. dataset.json is written last: where it is, the dataset is whole.
if [[ $scale != paper ]]; then
  run scripts/prepare_gcide.sh "$data"
  run scripts/encode_gcide.sh "$data"
  [[ -s data/recall-128/dataset.json ]] || run "$keen" tokenize recall --out data/recall-128
fi
[[ -s data/needle-$context/dataset.json ]] ||
  run "$keen" tokenize needle "$data" --context "$context" "${needle_windows[@]}" --out "data/needle-$context"

# Text, and what far longer texts than the trained ones cost.
variants text "$text" "$text_steps"
validation=(--data "$data/val_*.bin")
ask text eval "${texts[@]}" "${validation[@]}"
for which in trained swapped; do
  mapfile -t some < <($which text)
  ask text-$which eval "${some[@]}" "${validation[@]}" --context "$long" --per-position "$runs/text-$which.csv" \
    --svg "$results/text-$which.svg"
  ask text-$which-theta eval "${some[@]}" "${validation[@]}" --context "$long" --rope-theta $theta \
    --per-position "$runs/text-$which-theta.csv" --svg "$results/text-$which-theta.svg"
done
ask text-untrained eval "$runs/text/a-1" "${validation[@]}" --set model.attention=ssmax

# Recall.
if [[ $scale != paper ]]; then
  variants recall "$recall" "$recall_steps"
  windows=(--contexts 128,256,512,1024,2048,4096 --windows 20)
  for which in trained swapped; do
    mapfile -t some < <($which recall)
    ask recall-$which recall "${some[@]}" "${windows[@]}" --svg "$results/recall-$which.svg"
    ask recall-$which-theta recall "${some[@]}" "${windows[@]}" --rope-theta $theta --svg "$results/recall-$which-theta.svg"
  done

  # Which pairs of a head rotate, and QK-norm: said to decide about retrieval.
  rotary=()
  for attention in softmax ssmax; do
    of=(--set schedule.steps="$recall_steps" --set seed=1 --set model.attention=$attention)
    train "rotary/half-$attention-1" "$recall" "${of[@]}" --set model.rope_fraction=0.5
    train "rotary/quarter-$attention-1" "$recall" "${of[@]}" --set model.rope_fraction=0.25
    train "rotary/qk-norm-$attention-1" "$recall" "${of[@]}" --set model.qk_norm=true
    rotary+=("$runs/rotary/half-$attention-1" "$runs/rotary/quarter-$attention-1" "$runs/rotary/qk-norm-$attention-1")
  done
  ask rotary recall "${rotary[@]}" "${windows[@]}" --svg "$results/rotary.svg"
  ask rotary-theta recall "${rotary[@]}" "${windows[@]}" --rope-theta $theta --svg "$results/rotary-theta.svg"
fi

# Needles: every kind of model learns to answer, at the context it was trained on, and is asked beyond it.
needle_runs=()
for name in $(for seed in "${seeds[@]}"; do echo "a-$seed b-$seed"; done) c-1 d-1 e-1 f80-1; do
  train "needle/$name" "$needles" --init-from "$runs/text/$name" --set seed="${name#*-}" \
    --set model.attention="$(attention_of "${name%-*}")" --set schedule.steps="$needle_steps"
  needle_runs+=("$runs/needle/$name")
done
questions=(--contexts "$contexts" --trials "$trials" "${validation[@]}")
scores=(--contexts "$score_context" --depths 50 --trials 100 "${validation[@]}")
ask needle needle "${needle_runs[@]}" "${questions[@]}" --svg "$results/needle.svg"
ask needle-theta needle "${needle_runs[@]}" "${questions[@]}" --rope-theta $theta --svg "$results/needle-theta.svg"
ask needle-scores needle "${needle_runs[@]}" "${scores[@]}" --scores-svg "$results/needle-scores.svg"
ask needle-scores-theta needle "${needle_runs[@]}" "${scores[@]}" --rope-theta $theta \
  --scores-svg "$results/needle-scores-theta.svg"

report
