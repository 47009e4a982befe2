"""TensorBoard's own readers return what a run logged: after a resume that repeats steps, and with a torn last record.

    tensorboard_read_test.py KEEN        the program; exits with 77 (skipped) where the package is missing
"""

import json
import math
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing import event_accumulator, event_file_loader
    from tensorboard.backend.event_processing import plugin_event_accumulator
    from tensorboard.util import tensor_util
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

VOCABULARY, CONTEXT = 32, 16


def write_shard(path, tokens):
    header = [20240520, 1, len(tokens)] + [0] * 253
    path.write_bytes(struct.pack("<256i", *header) + struct.pack(f"<{len(tokens)}H", *tokens))


def write_inputs(directory):
    tokens = random.Random(1)
    write_shard(directory / "train.bin", [tokens.randrange(VOCABULARY) for _ in range(2000)])
    write_shard(directory / "val.bin", [tokens.randrange(VOCABULARY) for _ in range(200)])
    config = {
        "device": "cpu", "precision": "fp32",
        "model": {"vocab_size": VOCABULARY, "context": CONTEXT, "layers": 2, "width": 16, "heads": 2, "mlp_width": 32,
                  "attention": ["softmax", "ssmax_bias"]},
        "data": {"train": str(directory / "train.bin"), "validation": str(directory / "val.bin")},
        "batch": {"sequences": 4, "micro_sequences": 2}, "schedule": {"steps": 24, "warmup_steps": 2},
        "evaluate": {"every": 4, "batches": 2}, "checkpoint": {"every": 8}, "log": {"tensorboard": True},
    }
    (directory / "tiny.json").write_text(json.dumps(config))


def rows_of(run):
    """The rows of each kind by step, without those behind the step to which a resume went back."""
    rows = {"train": {}, "validation": {}, "attention": {}}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("event") == "resume":
            for kind, by_step in rows.items():
                rows[kind] = {step: old for step, old in by_step.items() if step <= row["step"]}
        elif row["kind"] in rows:
            rows[row["kind"]][row["step"]] = row
    return rows


def same(found, wanted, what):
    """Equal steps, and values that are equal once they are rounded to float32."""
    assert [step for step, _ in found] == [step for step, _ in wanted], f"{what}: {found} instead of {wanted}"
    for (step, value), (_, logged) in zip(found, wanted):
        if logged is None:
            assert math.isnan(value), f"{what} at {step}: {value} instead of NaN"
        else:
            assert abs(value - logged) <= 2e-7 * abs(logged), f"{what} at {step}: {value} instead of {logged}"


def check(scalars_of, histograms_of, rows, over):
    train, validation = rows["train"].values(), rows["validation"].values()
    prefix = {"step": "train/", "tokens": "train_by_tokens/"}[over]
    for key in ["loss", "grad_norm", "lr"] + (["tokens_per_s", "mfu"] if over == "step" else []):
        same(scalars_of(prefix + key), [(row[over], row[key]) for row in train], prefix + key)
    tag = {"step": "validation/loss", "tokens": "validation_by_tokens/loss"}[over]
    same(scalars_of(tag), [(row[over], row["loss"]) for row in validation], tag)
    if over == "tokens":
        return
    for name in ("s", "b"):
        heads = [(row["step"], row["layers"][0][name]) for row in rows["attention"].values()]
        for head in range(2):
            by_head = scalars_of(f"weights_{name}_by_head/layer_01_head_{head:02}")
            same(by_head, [(step, v[head]) for step, v in heads], name)
        same(scalars_of(f"weights_{name}_mean/layer_01"), [(step, sum(v) / 2) for step, v in heads], name)
        same([(step, least) for step, least, _, _ in histograms_of(f"weights_{name}/layer_01")],
             [(step, min(v)) for step, v in heads], name)
        same([(step, most) for step, _, most, _ in histograms_of(f"weights_{name}/layer_01")],
             [(step, max(v)) for step, v in heads], name)
        assert all(count == 2 for _, _, _, count in histograms_of(f"weights_{name}/layer_01"))


def check_with_event_accumulator(directory, rows, over):
    reader = event_accumulator.EventAccumulator(str(directory), size_guidance={"scalars": 0, "histograms": 0})
    reader.Reload()
    check(lambda tag: [(event.step, event.value) for event in reader.Scalars(tag)],
          lambda tag: [(event.step, event.histogram_value.min, event.histogram_value.max, event.histogram_value.num)
                       for event in reader.Histograms(tag)], rows, over)


def check_with_the_web_pages_reader(directory, rows, over):
    """What the dashboards read: everything becomes a tensor, a histogram rows of (left, right, count)."""
    reader = plugin_event_accumulator.EventAccumulator(str(directory), size_guidance={"tensors": 0})
    reader.Reload()

    def tensors(tag):
        return [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in reader.Tensors(tag)]

    check(lambda tag: [(step, float(tensor)) for step, tensor in tensors(tag)],
          lambda tag: [(step, float(t[:, 0].min()), float(t[:, 1].max()), t[:, 2].sum()) for step, t in tensors(tag)],
          rows, over)


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        write_inputs(directory)
        run = directory / "run"

        def train(*options):
            command = [str(program), "train", str(directory / "tiny.json"), "--run-dir", str(run), *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        train("--set", "schedule.stop_after=13")
        # As if the process had been killed in the middle of a write, and its last save with it.
        shutil.rmtree(run / "checkpoints" / "step_00000013")
        for part in (run, run / "by_tokens"):
            (file,) = part.glob("events.out.tfevents.*")
            assert len(list(event_file_loader.EventFileLoader(str(file)).Load())) > 10
            content = file.read_bytes()
            file.write_bytes(content[:-5])
        train()
        rows = rows_of(run)
        assert 13 not in rows["validation"], "the run went back, and no longer stops there"
        assert sorted(rows["train"]) == list(range(1, 25))
        for part, over in ((run, "step"), (run / "by_tokens", "tokens")):
            assert len(list(part.glob("events.out.tfevents.*"))) == 2
            check_with_event_accumulator(part, rows, over)
            check_with_the_web_pages_reader(part, rows, over)
    print("TensorBoard reads what was logged")


if __name__ == "__main__":
    main()
