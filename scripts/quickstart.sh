#!/usr/bin/env bash
# From a fresh Debian machine to three trained GPTs, side by side: installs what is missing, builds, prepares an English
# corpus and its vocabulary, trains the same small GPT with softmax and with SSMax on the same batches, forks the
# softmax run with SSMax swapped in, evaluates all three within and beyond their training context, and compares them.
# The last line names the page on which to look at the curves. Run again, it skips what is done and continues what was
# interrupted.
# Run it as yourself, not by sudo, which would leave build folders that are root's: it calls sudo for apt alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  echo "usage: scripts/quickstart.sh [--no-install]"
  echo "  --no-install  leave apt alone"
}

install=true
for argument in "$@"; do
  case $argument in
    --no-install) install=false ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart: unknown argument \"$argument\"" >&2; usage >&2; exit 2 ;;
  esac
done

keen=build/keen
data=data/gcide
context=256 # of configs/quickstart-*.json
runs=(quickstart-softmax quickstart-ssmax quickstart-fork)

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
stage=0 stage_name="" stage_started=$SECONDS
finish_stage() { [[ -z $stage_name ]] || echo "-- done in $(clock $((SECONDS - stage_started))), $(clock $SECONDS) in all"; }
heading() {
  finish_stage
  stage=$((stage + 1)) stage_name=$1 stage_started=$SECONDS
  printf '\n== %d/8 %s\n' "$stage" "$stage_name"
}
tell_how_to_go_on() { echo "quickstart: stopped in stage $stage ($stage_name); run it again to go on from there" >&2; }
trap tell_how_to_go_on ERR
trap 'tell_how_to_go_on; exit 75' INT TERM

heading "Packages"
if $install; then scripts/install.sh --without-tests; else echo "left alone (--no-install)"; fi

heading "Build"
scripts/build_keen.sh

heading "Corpus: a dictionary of English"
scripts/prepare_gcide.sh "$data"

heading "Vocabulary of 2,048 pieces, and tokens"
scripts/encode_gcide.sh "$data"

heading "Train with softmax and with SSMax, on the same batches"
"$keen" train configs/quickstart-softmax.json
"$keen" train configs/quickstart-ssmax.json

heading "Fork the softmax run: SSMax swapped in"
"$keen" train configs/quickstart-fork.json

heading "Evaluate within and beyond the training context of $context tokens"
# Longer windows, fewer of them: every loss is over the same number of tokens.
for factor in 1 2 4; do
  "$keen" eval "${runs[@]/#/runs/}" --data "$data/val_*.bin" --context $((factor * context)) --batches $((8 / factor))
done
positions=runs/quickstart-positions.svg
echo "The longest again with RoPE's base 50 times as large, as the paper reads beyond the training context:"
"$keen" eval "${runs[@]/#/runs/}" --data "$data/val_*.bin" --context $((4 * context)) --batches 2 --rope-theta 500000 \
  --svg "$positions"

heading "Compare"
page=runs/quickstart.html
"$keen" compare "${runs[@]/#/runs/}" --html "$page" --figure "$positions"
echo "For scale, models that only count:"
"$keen" inspect "$data" | grep -E 'unigram|bigram'
finish_stage
echo
echo "Ask a model to go on:      $keen sample runs/quickstart-ssmax --prompt Whale"
echo "The curves, in a browser:  file://$PWD/$page"
