#!/usr/bin/env python3
"""keen and PyTorch in turn: training steps of the same models on the same threads, as rows of tests/bench/README.md.

usage: side_by_side.py [--keen BENCH] [--python PYTHON] [--shapes a,b] [--rounds N] [--threads N] [--json FILE] ...

Each round runs keen_train_step_bench on one shape and precision, with softmax and with SSMax, and then
scripts/bench_pytorch.py on the same (softmax; eager and compiled), every one in a process of its own, so that peak memory
is its own. A round's rate is the mean over all steps of keen, reading of data included, and the median of the timed steps
of PyTorch, which has its one batch in memory: a slow moment of the machine counts against keen alone. Printed are the
medians over the rounds, with the smallest and the largest. PYTHON must have torch. Nothing else should run on the machine.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Names in tests/bench/shapes.h, and what scripts/bench_pytorch.py is to run.
SHAPES = {
    "quickstart": ["--model", "llama-4x128", "--sequences", "16"],
    "6x256": ["--model", "gpt2-6x256", "--sequences", "8"],
    "6x384": ["--model", "gpt2-6x384", "--sequences", "8"],
    "124m_b4_t64": ["--model", "gpt2-124m", "--sequences", "4", "--context", "64"],
    "124m_b1_t1024": ["--model", "gpt2-124m", "--sequences", "1"],
}


def run(command, threads):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def time_keen(bench, shape, precision, attention, seconds, threads):
    command = [bench, f"--benchmark_filter=^{shape}/{precision}/{attention}/", "--benchmark_format=json",
               f"--benchmark_min_time={seconds}"]
    found = json.loads(run(command, threads))["benchmarks"][0]
    return {"tokens_per_s": found["tokens/s"], "peak_MiB": found["peak_MiB"], "of_gemm_rate": found["of_gemm_rate"]}


def time_pytorch(python, shape, precision, mode, steps, threads):
    command = [python, str(ROOT / "scripts/bench_pytorch.py"), *SHAPES[shape], "--precision", precision, "--mode", mode,
               "--steps", str(steps), "--threads", str(threads), "--json"]
    found = json.loads(run(command, threads).splitlines()[-1])
    return {"tokens_per_s": found["tokens_per_s"], "peak_MiB": found["peak_memory_bytes"] / 2**20}


def rate(results):
    rates = [r["tokens_per_s"] for r in results]
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"


def median(results, key):
    return statistics.median(r[key] for r in results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keen", default=str(ROOT / "build/tests/bench/keen_train_step_bench"))
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of PyTorch in a round (8)")
    parser.add_argument("--seconds", type=float, default=4, help="that keen is timed in a round, at least (4)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(all processors)")
    parser.add_argument("--json", help="also write every result there, after each row")
    arguments = parser.parse_args()
    everything = []
    print("| shape | precision | keen softmax | keen SSMax | PyTorch eager | compiled | keen over the best | "
          "of GEMM rate | peak MiB: keen | PyTorch |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for shape in arguments.shapes.split(","):
        for precision in arguments.precisions.split(","):
            results = {"softmax": [], "ssmax": [], "eager": [], "compile": []}
            for _ in range(arguments.rounds):
                for attention in ("softmax", "ssmax"):
                    results[attention].append(time_keen(arguments.keen, shape, precision, attention, arguments.seconds,
                                                        arguments.threads))
                for mode in ("eager", "compile"):
                    results[mode].append(time_pytorch(arguments.python, shape, precision, mode, arguments.steps,
                                                      arguments.threads))
            best = max(("eager", "compile"), key=lambda mode: median(results[mode], "tokens_per_s"))
            factor = median(results["softmax"], "tokens_per_s") / median(results[best], "tokens_per_s")
            print(f"| {shape} | {precision} | {rate(results['softmax'])} | {rate(results['ssmax'])} | "
                  f"{rate(results['eager'])} | {rate(results['compile'])} | {factor:.2f} | "
                  f"{100 * median(results['softmax'], 'of_gemm_rate'):.0f} % | "
                  f"{median(results['softmax'], 'peak_MiB'):,.0f} | {median(results[best], 'peak_MiB'):,.0f} |", flush=True)
            everything.append({"shape": shape, "precision": precision, "results": results})
            if arguments.json:
                pathlib.Path(arguments.json).write_text(json.dumps(everything, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
