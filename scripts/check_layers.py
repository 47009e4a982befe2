#!/usr/bin/env python3
"""Fails when a floor of src/ includes a floor above it or beside it, or when CUDA is included outside its own files.

usage: check_layers.py SRC | --self-test

src/README.md draws the floors. Files named *_cuda*, *nccl* or *cudnn*, and .cu and .cuh files, may include CUDA.
"""

import pathlib
import re
import sys
import tempfile

# Every floor, and the floors that it may include besides itself.
BELOW = {
    "core": set(),
    "io": {"core"},
    "ops": {"core"},
    "comm": {"core"},
    "data": {"io", "core"},
    "model": {"io", "ops", "core"},
    "train": {"model", "data", "comm", "io", "ops", "core"},
    "eval": {"train", "model", "data", "comm", "io", "ops", "core"},
    "report": {"train", "model", "data", "comm", "io", "ops", "core"},
    "cli": {"eval", "report", "train", "model", "data", "comm", "io", "ops", "core"},
}
SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".in"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CUDA_HEADER = re.compile(r"^(cuda|cublas|cudnn|nccl|curand|cub/|cooperative_groups|nvml|mma\.h)")
CUDA_FILE = re.compile(r"\.(cu|cuh)$|_cuda|nccl|cudnn")


def complaints_about(path, floor):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(2)
        if CUDA_HEADER.match(header) and not CUDA_FILE.search(path.name):
            yield f"{path}:{number}: includes <{header}>; CUDA belongs into .cu, .cuh, *_cuda*, *nccl* or *cudnn* files"
        if match.group(1) == "<":
            continue
        other = header.split("/")[0]
        if "/" not in header or ".." in pathlib.PurePath(header).parts or other not in BELOW:
            yield f'{path}:{number}: includes "{header}"; write the path from src/, as "core/check.h"'
        elif other != floor and other not in BELOW[floor]:
            allowed = ", ".join(name for name in BELOW if name in BELOW[floor]) or "nothing else"
            yield f'{path}:{number}: includes "{header}"; {floor} may include {allowed}'


def complaints_in(source):
    found = []
    for path in sorted(source.rglob("*")):
        if not path.is_file() or path.suffix not in SUFFIXES:
            continue
        floor = path.relative_to(source).parts[0]
        if floor in BELOW:
            found += complaints_about(path, floor)
        else:
            found.append(f"{path}: \"{floor}\" is no floor; add it to scripts/check_layers.py and src/README.md")
    return found


def self_test():
    good = {
        "core/check.h": "#include <string>\n",
        "ops/gelu.cpp": '#include "ops/gelu.h"\n#include "core/check.h"\n',
        "ops/gelu.cu": "#include <cuda_runtime.h>\n",
        "comm/nccl.cpp": "#include <nccl.h>\n",
        "cli/main.cpp": '#include "train/trainer.h"\n// #include "nonsense.h"\n',
    }
    bad = {
        "core/check.h": '#include "io/file.h"\n',  # upwards
        "io/file.cpp": ' #  include "ops/gelu.h"\n',  # sideways
        "eval/eval.h": '#include "report/compare.h"\n',  # sideways
        "ops/gelu.cpp": "#include <cuda_runtime.h>\n",
        "ops/gelu.h": '#include "../core/check.h"\n',
        "data/shard.cpp": '#include "shard.h"\n',
        "util/things.h": "",
    }
    for files, expected in ((good, 0), *(({name: text}, 1) for name, text in bad.items())):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            found = complaints_in(pathlib.Path(folder))
        if len(found) != expected:
            sys.exit(f"self-test: {files} gave {found}, not {expected} complaint(s)")
    print(f"self-test: {len(bad)} bad includes are caught, {len(good)} good files pass")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--self-test":
        return self_test()
    source = pathlib.Path(sys.argv[1])
    files = sum(1 for path in source.rglob("*") if path.suffix in SUFFIXES)
    if files == 0:
        sys.exit(f"layers: no source files under {source}")
    found = complaints_in(source)
    if found:
        sys.exit("\n".join(found) + f"\nlayers: {len(found)} include(s) break the plan of src/README.md")
    print(f"layers: {files} files include downwards only")


if __name__ == "__main__":
    main()
