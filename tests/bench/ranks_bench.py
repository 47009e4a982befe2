#!/usr/bin/env python3
"""Two ranks of one thread against one rank of two threads, and the bytes that a step sends.

usage: ranks_bench.py KEEN [--repeat N] [--steps N]

Trains the same models both ways, in turn, and prints a Markdown table of the medians of a step's time over all
repetitions, tokens a second, the efficiency (the time of one rank over that of two), and what each rank sent in a step
beside the least that a sum of gradients and a gather of weights can send. Ranks meet over TCP. Random tokens: time does
not depend on them. Nothing else should run on the machine.
"""

import argparse
import json
import os
import random
import socket
import statistics
import struct
import subprocess
import tempfile

SHAPES = {
    "4 layers x 128, T 256": {"layers": 4, "width": 128, "heads": 4, "context": 256, "vocab_size": 2048},
    "6 layers x 384, T 256": {"layers": 6, "width": 384, "heads": 6, "context": 256, "vocab_size": 8192},
}


def write_shard(path, tokens, vocabulary):
    header = struct.pack("<256i", 20240520, 1, tokens, *([0] * 253))
    draw = random.Random(1)
    with open(path, "wb") as file:
        file.write(header)
        file.write(struct.pack(f"<{tokens}H", *(draw.randrange(vocabulary) for _ in range(tokens))))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(keen, folder, run, ranks, threads, sets):
    port = str(free_port())
    processes = []
    for rank in range(ranks):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        if ranks > 1:
            environment.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1",
                               MASTER_PORT=port)
        command = [keen, "train", "bench.json", "--run-dir", run]
        for key, value in sets.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL))
    for process in processes:
        if process.wait() != 0:
            raise SystemExit("keen failed")
    with open(os.path.join(folder, run, "metrics.jsonl")) as file:
        rows = [json.loads(line) for line in file]
    times = [row["step_ms"] for row in rows if row["kind"] == "train"][3:]  # the first ones warm up
    sent = [row["sent_bytes"] for row in rows if row.get("event") == "stop" and "sent_bytes" in row]
    with open(os.path.join(folder, run, "environment.json")) as file:
        parameters = json.load(file)["parameters"]
    return times, sent[-1] if sent else 0, parameters


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keen")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    keen = os.path.abspath(options.keen)
    print("| model, fp32 | 1 rank x 2 threads | 2 ranks x 1 thread | efficiency | sent a step and rank | least |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_shard(os.path.join(folder, "train.bin"), 200_000, shape["vocab_size"])
            batch = {"sequences": 8, "micro_sequences": 4}
            config = {"device": "cpu", "precision": "fp32", "model": shape, "data": {"train": "train.bin"}, "batch": batch,
                      "schedule": {"steps": options.steps, "warmup_steps": 2}, "evaluate": {"every": 0},
                      "checkpoint": {"every": 0}}
            with open(os.path.join(folder, "bench.json"), "w") as file:
                json.dump(config, file)
            times = {1: [], 2: []}
            for turn in range(options.repeat):
                for ranks in (1, 2):
                    step_ms, sent, parameters = train(keen, folder, f"r{ranks}-{turn}", ranks, 2 // ranks, {})
                    times[ranks] += step_ms
            tokens = batch["sequences"] * shape["context"]
            cells = []
            for ranks in (1, 2):
                median = statistics.median(times[ranks])
                cells.append(f"{median:.1f} ms, {1000 * tokens / median:,.0f} tokens/s")
            efficiency = statistics.median(times[1]) / statistics.median(times[2])
            least = 2 * 4 * parameters // 2
            print(f"| {name} | {cells[0]} | {cells[1]} | {100 * efficiency:.0f} % | {sent / options.steps:,.0f} B | "
                  f"{least:,} B |")


main()
