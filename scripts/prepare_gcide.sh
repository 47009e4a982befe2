#!/bin/bash
# prepare_gcide.sh DIR: writes DIR/gcide.txt, the Collaborative International Dictionary of English as plain text for
# language modelling, from Debian's package dict-gcide. Entries are separated by blank lines (`--documents blank-line`),
# each sense is one line. Does nothing when the file is already there.
set -euo pipefail

if [ $# -ne 1 ]; then
  echo "usage: $0 DIR" >&2
  exit 2
fi
source_file=${GCIDE_DICT:-/usr/share/dictd/gcide.dict.dz}
target=$1/gcide.txt

if [ -s "$target" ]; then
  echo "$target is already there"
  exit 0
fi
if [ ! -r "$source_file" ]; then
  echo "$0: $source_file is missing; install it with: apt-get install dict-gcide" >&2
  exit 3
fi
mkdir -p "$1"
partial=$(mktemp "$1/.gcide.XXXXXX")
trap 'rm -f "$partial" "$partial.utf8" "$partial.errors"' EXIT

# A .dz file is a gzip file. Everything works on bytes: a handful of characters are Windows-1252, and are mapped first.
export LC_ALL=C
gzip -dc <"$source_file" |
  sed -e "s/\\xb9/'/g; s/\\x92/'/g; s/\\xe7/\\xc3\\xa7/g" -e 's/[[:space:]]*$//' |
  awk '
    # A sense ends at a blank line, an entry where a line starts in the first column. Lines were broken at 65 columns:
    # those of a sense are joined again.
    function end_sense() {
      gsub(/[ \t]+/, " ", sense)
      sub(/^ /, "", sense)
      if (sense != "") print sense
      sense = ""
    }
    # The licence and the preface stand before the first entry.
    !started { if ($0 ~ /^A \\A/) started = 1; else next }
    # The source of the sense above, alone on its line.
    /^ +\[((1913 Webster|WordNet|Webster 1913|PJC|AS|RH)[^]]*|[A-Z0-9 +.]*PJC[^]]*)\]$/ { next }
    /^[^ ]/ { end_sense(); if (entries++) print "" }
    /^$/ { end_sense(); next }
    { sense = sense " " $0 }
    END { end_sense() }
  ' |
  sed -E \
    -e 's/ ?\\[^\\]*\\( ?\([^()]*\))?//g' \
    -e 's/[{}]//g' \
    -e "s/\[ae\]|\[=ae\]|\['ae\]/\xc3\xa6/g; s/\[AE\]/\xc3\x86/g; s/\[oe\]/\xc5\x93/g; s/\[eth\]/\xc3\xb0/g" \
    -e "s/\['e\]/\xc3\xa9/g; s/\[\`e\]/\xc3\xa8/g; s/\[\^e\]/\xc3\xaa/g; s/\[\"e\]/\xc3\xab/g; s/\['a\]/\xc3\xa1/g" \
    -e "s/\[\`a\]/\xc3\xa0/g; s/\[\^a\]/\xc3\xa2/g; s/\[aum\]/\xc3\xa4/g; s/\[\"o\]/\xc3\xb6/g; s/\[\"u\]|\[udd\]/\xc3\xbc/g" \
    -e "s/\[,c\]/\xc3\xa7/g; s/\[~n\]/\xc3\xb1/g; s/\['o\]/\xc3\xb3/g; s/\['i\]/\xc3\xad/g; s/\[\^o\]/\xc3\xb4/g" \
    -e 's/\[deg\]/\xc2\xb0/g; s/\[sect\]/\xc2\xa7/g; s/\[frac([0-9])x?([0-9]+)\]/\1\/\2/g; s/\[th\]/th/g; s/\[imac\]/\xc4\xab/g; s/\[thorn\]/\xc3\xbe/g; s/\[root\]/\xe2\x88\x9a/g' \
    -e 's/\[[-=^`".,~*'"'"'_:]?([A-Za-z]{1,2})[\^"]?\]/\1/g' \
    -e 's/ ([1913 Webster|PJC]*\[PJC\])$//' \
    -e 's/ *\[(1913 Webster|WordNet 1\.[0-9]|Webster 1913 Suppl\.|PJC)[^]]*\]//g' >"$partial"
# Whatever is not UTF-8 still is dropped, rather than left for the tokenizer. iconv ends with 1 when it dropped something,
# and says nothing; when it could not write, it ends with 1 too, and says why.
status=0
iconv -f UTF-8 -t UTF-8 -c "$partial" >"$partial.utf8" 2>"$partial.errors" || status=$?
if ((status > 1)) || [[ -s $partial.errors ]]; then
  echo "$0: iconv failed with status $status: $(cat "$partial.errors")" >&2
  exit 8
fi
# What is there is never made again, so a part must not pass for the whole.
before=$(wc -c <"$partial") after=$(wc -c <"$partial.utf8")
if ((after < 20000000 || after < before - before / 1000)); then
  echo "$0: only $after bytes of text were made (of $before before those that are not UTF-8 were dropped); is" \
    "$source_file the whole dictionary?" >&2
  exit 3
fi
mv "$partial.utf8" "$target"
echo "$target: $(wc -c <"$target") bytes, $(grep -c '^$' "$target") entries"
