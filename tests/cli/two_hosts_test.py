#!/usr/bin/env python3
"""Ranks on two hosts, which are two network namespaces with a cable between them: they train, go on, and lose the cable.

usage: two_hosts_test.py KEEN

Ranks 0 and 1 run on one host and rank 2 on the other, as a launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT would start them. Ends with 77, which CTest takes for skipped, without root or iproute2.
"""

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
CONFIG = {
    "seed": 7, "device": "cpu", "precision": "fp64",
    "model": {"vocab_size": 300, "context": 16, "layers": 2, "width": 16, "heads": 2, "mlp_width": 32,
              "attention": ["softmax", "ssmax"]},
    "data": {"train": "train.bin", "validation": "train.bin"}, "batch": {"sequences": 6, "micro_sequences": 1},
    "schedule": {"steps": 20, "warmup_steps": 2}, "evaluate": {"every": 10, "batches": 2},
    "checkpoint": {"every": 10},
}


def write_shard(path, tokens, vocabulary):
    draw = random.Random(1)
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", 20240520, 1, tokens, *([0] * 253)))
        file.write(struct.pack(f"<{tokens}H", *(draw.randrange(vocabulary) for _ in range(tokens))))


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Hosts:
    """Two namespaces, whose names are this process's own, and the ranks that run there, which end with them."""

    def __init__(self):
        self.ranks = []
        self.names = [f"keen{os.getpid()}{letter}" for letter in "ab"]
        self.addresses = ["10.213.7.1", "10.213.7.2"]

    def __enter__(self):
        made = []
        try:
            for name in self.names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "name", "cable", "netns",
               self.names[1])
            for name, address in zip(self.names, self.addresses):
                ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
                ip("-n", name, "link", "set", "cable", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            for name in made:
                ip("netns", "delete", name)
            print(f"skipped: no network namespaces here: {error.stderr}")
            sys.exit(SKIPPED)
        return self

    def __exit__(self, *_):
        for rank in self.ranks:
            rank.kill()
        for rank in self.ranks:
            rank.communicate()
        for name in self.names:
            ip("netns", "delete", name)

    def start(self, command, folder):
        """Ranks 0 and 1 on the first host, rank 2 on the second one."""
        ranks = []
        for rank, host in enumerate([0, 0, 1]):
            environment = dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank % 2), WORLD_SIZE="3", MASTER_PORT="29500",
                               MASTER_ADDR=self.addresses[0], OMP_NUM_THREADS="1")
            ranks.append(subprocess.Popen(["ip", "netns", "exec", self.names[host], *command], cwd=folder,
                                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            self.ranks.append(ranks[-1])
        return ranks


def ends_of(ranks):
    ends = []
    for rank in ranks:
        out, err = rank.communicate(timeout=120)
        ends.append((rank.returncode, out + err))
    return ends


def expect(ok, what):
    if not ok:
        raise SystemExit(f"failed: {what}")


def steps_of(run):
    try:
        with open(os.path.join(run, "metrics.jsonl")) as file:
            return sum('"kind":"train"' in line for line in file)
    except FileNotFoundError:
        return 0


def main():
    keen = os.path.abspath(sys.argv[1])
    if os.geteuid() != 0 or subprocess.run(["sh", "-c", "command -v ip"], capture_output=True).returncode != 0:
        print("skipped: network namespaces take root and iproute2")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as folder, Hosts() as hosts:
        write_shard(os.path.join(folder, "train.bin"), 5000, 300)
        with open(os.path.join(folder, "c.json"), "w") as file:
            json.dump(CONFIG, file)
        train = [keen, "train", "c.json"]

        for stop in (10, 20):
            ends = ends_of(hosts.start([*train, "--run-dir", "two", "--set", f"schedule.stop_after={stop}"], folder))
            expect(all(code == 0 for code, _ in ends), f"training to step {stop}: {ends}")
        subprocess.run([*train, "--run-dir", "one"], cwd=folder, check=True, capture_output=True)
        equal = subprocess.run([keen, "compare", "one", "two", "--assert-equal", "--tolerance", "1e-8"], cwd=folder,
                               capture_output=True, text=True)
        expect(equal.returncode == 0, f"two hosts and one rank differ: {equal.stdout}{equal.stderr}")

        endless = [*train, "--run-dir", "endless", "--set", "schedule.steps=1000000", "--set", "parallel.timeout_s=1"]
        ranks = hosts.start(endless, folder)
        waited = time.time()
        while steps_of(os.path.join(folder, "endless")) < 5 and time.time() < waited + 60:
            time.sleep(0.01)
        ip("-n", hosts.names[0], "link", "set", "cable", "down")
        ends = ends_of(ranks)
        expect(all(code == 7 for code, _ in ends), f"without the cable: {ends}")
        expect("rank 2 does not answer" in ends[0][1] + ends[1][1], f"the host that is away is named: {ends}")
        expect("ranks 0, 1 do not answer" in ends[2][1], f"and by it the others: {ends}")
    print("two hosts train as one rank, go on, and end without the cable")


main()
