#!/usr/bin/env bash
# encode_gcide.sh DIR: makes a dataset of DIR/gcide.txt (prepare_gcide.sh): a vocabulary of 2,048 pieces, and shards of which
# a fiftieth is for validation. Skips what is there.
set -euo pipefail
data=${1:?usage: encode_gcide.sh DIR}
keen=$(dirname "${BASH_SOURCE[0]}")/../build/keen

if [[ -s $data/tokenizer.model ]]; then
  echo "$data/tokenizer.model is already there"
else
  "$keen" tokenize vocab "$data/gcide.txt" --documents blank-line --size 2048 --sample-bytes 8000000 \
    --out "$data/tokenizer.model"
fi
# dataset.json is written last: where it is, the dataset is whole.
if [[ -s $data/dataset.json ]]; then
  echo "$data/dataset.json is already there"
else
  "$keen" tokenize encode "$data/gcide.txt" --documents blank-line --model "$data/tokenizer.model" --out "$data" \
    --validation 0.02
fi
