#!/usr/bin/env python3
"""Compiles kernels for several GPUs and fails where the compiler reports spilled registers or a stack.

usage: check_spills.py NVCC SOURCE_DIRECTORY GENERATED_DIRECTORY FILE.cu...
       check_spills.py --self-test

A kernel whose sums fill the registers (attention) is slow as soon as one more value is alive in its inner loop, and
nothing but the compiler's report shows it: no GPU is needed here, and none is used.
"""

import re
import subprocess
import sys

ARCHITECTURES = ("80", "90a", "100")
# As src/cuda.cmake has them.
FLAGS = ("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-DFMT_USE_CONSTEXPR=1", "-diag-suppress=554")


def kernels_of(report):
    """(name, registers, bytes of stack, bytes spilled) of each kernel in what ptxas -v says."""
    kernels = []
    name, stack, spilled = None, 0, 0
    for line in report.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name, stack, spilled = found[1], 0, 0
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack = int(found[1])
            spilled = int(found[2]) + int(found[3])
        elif (found := re.search(r"Used (\d+) registers", line)) and name is not None:
            kernels.append((name, int(found[1]), stack, spilled))
            name = None
    return kernels


def short(name):
    """The last function name in a mangled one, with what its template was given, as far as it is a number."""
    names, rest = [], name
    while found := re.search(r"(\d+)([A-Za-z_]\w*)", rest):
        length = int(found[1])
        if length > len(found[2]):
            break
        names.append(found[2][:length])
        rest = found[2][length:]
        if names[-1].endswith("_kernel"):
            number = re.match(r"ILi(\d+)E", rest)
            return f"{names[-1]}<{number[1]}>" if number else names[-1]
    return name


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    nvcc, source, generated, *files = arguments
    bad = 0
    for file in files:
        jobs = []
        for arch in ARCHITECTURES:
            command = [nvcc, *FLAGS, f"-arch=sm_{arch}", "-Xptxas=-v", "-cubin", f"-I{source}", f"-I{generated}",
                       f"{source}/{file}", "-o", "/dev/null"]
            jobs.append((arch, subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
        for arch, job in jobs:
            report = job.communicate()[0]
            kernels = kernels_of(report)
            if job.returncode != 0 or not kernels:
                print(f"{file} for sm_{arch}: {'does not compile' if job.returncode else 'no kernels'}\n{report}")
                bad += 1
            for name, registers, stack, spilled in kernels:
                verdict = "" if stack == spilled == 0 else f"   SPILLS: {spilled} bytes, stack {stack} bytes"
                bad += verdict != ""
                print(f"sm_{arch:4} {registers:4} registers  {short(name)}{verdict}")
    return 1 if bad else 0


def self_test():
    report = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN4keen3ops12_GLOBAL__N_111sums_kernelILi64EEEvPf' for 'sm_90a'
ptxas info    : Function properties for _ZN4keen3ops12_GLOBAL__N_111sums_kernelILi64EEEvPf
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size
ptxas info    : Compiling entry function '_ZN4keen9copy_kernelEv' for 'sm_90a'
ptxas info    : Function properties for _ZN4keen9copy_kernelEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""
    kernels = kernels_of(report)
    assert [k[1:] for k in kernels] == [(255, 16, 20), (40, 0, 0)], kernels
    assert short(kernels[0][0]) == "sums_kernel<64>", short(kernels[0][0])
    assert kernels_of("nvcc fatal : nothing") == []
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
