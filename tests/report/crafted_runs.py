"""Run directories as keen writes them, made up: smooth curves with known numbers, and whatever happens to runs."""

import json
import math
import pathlib
import random


def config(steps, attention="softmax", **changes):
    model = {
        "vocab_size": 512,
        "context": 64,
        "layers": 2,
        "width": 32,
        "heads": 2,
        "mlp_width": 64,
        "attention": attention,
    }
    return {
        "name": "crafted",
        "seed": 7,
        "model": model | changes.pop("model", {}),
        "data": {"train": "train.bin", "validation": "val.bin"},
        "batch": {"sequences": 16, "micro_sequences": 16},
        "optimizer": {"lr": 0.002},
        "schedule": {"kind": "cosine", "steps": steps, "warmup_steps": steps // 20},
        "evaluate": {"every": 25},
    } | changes


def loss_at(step, floor=3.0, slope=60):
    return floor + 7 * slope / (slope + step)


class Run:
    """Collects rows; write() makes the directory."""

    tokens_per_step = 1024

    def __init__(self, configuration, noise_seed=1, floor=3.0, first_step=1, slope=60, noise=0.05):
        self.config = configuration
        self.random = random.Random(noise_seed)
        self.floor, self.slope, self.noise = floor, slope, noise
        self.step = first_step - 1
        self.seconds = 0.0
        self.rows = []

    def event(self, event, **fields):
        self.rows.append({"kind": "event", "event": event, "step": self.step, **fields})
        return self

    def train(self, steps, every=25, heads=0, layers=0, b=False, non_finite=(), spikes=()):
        """`heads` and `layers`: rows of s (and b) at every validation."""
        total = self.config["schedule"]["steps"]
        for _ in range(steps):
            self.step += 1
            self.seconds += 0.05
            loss = loss_at(self.step, self.floor, self.slope) + self.random.gauss(0, self.noise)
            loss += 1.5 if self.step in spikes else 0
            self.rows.append(
                {
                    "kind": "train",
                    "step": self.step,
                    "tokens": self.step * self.tokens_per_step,
                    "loss": None if self.step in non_finite else round(loss, 8),
                    "grad_norm": None if self.step in non_finite else round(math.exp(self.random.gauss(-0.5, 0.3)), 8),
                    "lr": 0.002
                    * min(1, self.step / (total / 20))
                    * (0.55 + 0.45 * math.cos(math.pi * self.step / total)),
                    "step_ms": 50 + self.random.gauss(0, 1),
                    "tokens_per_s": 20000,
                    "mfu": 0.4,
                    "elapsed_s": round(1.05 * self.seconds, 6),
                }
            )
            if self.step % every == 0:
                self.validate(heads, layers, b)
        return self

    def validate(self, heads=0, layers=0, b=False):
        loss = round(loss_at(self.step, self.floor + 0.04, self.slope), 8)
        self.rows.append(
            {
                "kind": "validation",
                "step": self.step,
                "tokens": self.step * self.tokens_per_step,
                "loss": loss,
                "perplexity": math.exp(loss),
            }
        )
        if not layers:
            return
        progress = 1 - math.exp(-self.step / (5 * self.slope))
        scales = []
        for layer in range(layers):
            row = {
                "layer": layer,
                "s": [round(0.25 + progress * 0.1 * math.sin(layer + 2.4 * head), 9) for head in range(heads)],
            }
            if b:
                row["b"] = [round(progress * 0.3 * math.cos(layer + head), 9) for head in range(heads)]
            scales.append(row)
        self.rows.append({"kind": "attention", "step": self.step, "layers": scales})

    def column(self, kind, name):
        return [row[name] for row in self.rows if row["kind"] == kind]

    def write(self, directory, tail=""):
        path = pathlib.Path(directory)
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(self.config))
        lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in self.rows)
        (path / "metrics.jsonl").write_text(lines + tail)
        return self
