#!/usr/bin/env python3
"""What scripts/gpu_check.sh compares and tabulates; prints one line or a Markdown table.

    gpu_report.py losses RUN RUN --below X    the largest difference of two runs' training losses; fails above X
    gpu_report.py steps BENCH                 rates of keen_train_step_bench: its JSON, or a folder of such files
    gpu_report.py kernels BENCH.json          rates of keen_cuda_bench beside what the device can do
    gpu_report.py pytorch BENCH TORCH         the same steps of keen and of bench_pytorch.py --json, side by side
    gpu_report.py goals BENCH TORCH           what keen is meant to reach, and what was measured of it so far
    gpu_report.py --self-test
"""

import argparse
import contextlib
import io
import json
import pathlib
import re
import sys
import tempfile

# Dense bf16 FLOP/s by the vendor's datasheets: the 100 % of MFU.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}


def losses_of(run):
    losses = {}
    for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "train":
            losses[row["step"]] = row["loss"]  # of several rows of a step the last one counts
    return losses


def compare_losses(arguments):
    a, b = (losses_of(run) for run in arguments.files)
    names = " and ".join(pathlib.Path(run).name for run in arguments.files)
    if not a or a.keys() != b.keys():
        sys.exit(f"{names}: not the same steps ({len(a)} and {len(b)})")
    if None in a.values() or None in b.values():
        sys.exit(f"{names}: a loss is not finite")
    worst = max(a, key=lambda step: abs(a[step] - b[step]))
    difference = abs(a[worst] - b[worst])
    last = max(a)
    text = (f"{names}: largest difference of {len(a)} losses {difference:.1e} (step {worst}); "
            f"at the end {a[last]:.4f} and {b[last]:.4f}")
    if not difference < arguments.below:
        sys.exit(f"{text}: not below {arguments.below:g}")
    print(text)


def benchmarks(path):
    """Benchmarks that ran, and what became of the others; of a file, or of all files of a folder."""
    path = pathlib.Path(path)
    files = sorted(path.glob("*.json"), key=lambda file: file.stat().st_mtime_ns) if path.is_dir() else [path]
    found, errors = {}, []
    for file in files:
        text = file.read_text() if file.is_file() else ""
        try:
            document = json.loads(text)
        except json.JSONDecodeError:  # one that was stopped
            if text.strip():
                errors.append(f"{file.stem}: did not end")
            continue
        device = document.get("context", {}).get("device", "")
        for entry in document["benchmarks"]:
            name = re.sub(r"/(iterations|min_time|real_time|manual_time|process_time|repeats)[:0-9.]*", "",
                          entry["name"])
            if entry.get("error_occurred"):
                errors.append(f"{name}: {entry.get('error_message', 'failed')}")
            elif entry.get("run_type", "iteration") == "iteration":
                found[name] = entry | {"device": device}
    return found, errors


def milliseconds(entry):
    return entry["real_time"] * {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[entry["time_unit"]]


def peak_of(device):
    return next((peak for name, peak in PEAKS.items() if name in device), None)


def print_table(header, rows, errors=()):
    print("| " + " | ".join(header) + " |")
    print("| " + " | ".join("---" for _ in header) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    for error in errors:
        print(f"\n- {error}")


def steps_table(arguments):
    found, errors = benchmarks(arguments.files[0])
    rows = []
    for name, entry in found.items():
        rate, peak = entry["tokens/s"], peak_of(entry["device"])
        mfu = f"{100 * rate * entry['flops_per_token'] / peak:.1f} %" if peak else "-"
        rows.append([name.removeprefix("cuda/"), f"{milliseconds(entry):.1f}", f"{rate:,.0f}", mfu])
    print("Training steps; MFU is 6 n + 6 L C T FLOPs a token over the datasheet's dense bf16 rate.\n")
    print_table(["shape/precision/attention/path", "ms a step", "tokens/s", "MFU"], rows, errors)


def kernels_table(arguments):
    found, errors = benchmarks(arguments.files[0])
    rows = []
    for name, entry in found.items():
        ms = milliseconds(entry)
        tera = entry.get("flops", 0) / 1e12
        giga = entry.get("bytes", 0) / 1e9
        share = entry.get("of_floor")
        rows.append([name, f"{1e3 * ms:.1f}", f"{tera:.0f}" if tera else "-", f"{giga:,.0f}" if giga else "-",
                     f"{100 * share:.0f} %" if share else "-"])
    print("Kernels; the floor is what a copy of as many bytes, or the best matrix product, takes on this card.\n")
    print_table(["kernel", "us", "TFLOP/s", "GB/s", "of the floor"], rows, errors)


# Names of bench_pytorch.py's models in keen_train_step_bench.
SHAPES = {"gpt2-124m": "124m", "gpt2-1558m": "1558m", "llama-162m": "rope162m"}


def torch_rows(path):
    """What bench_pytorch.py has measured so far."""
    path = pathlib.Path(path)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def pytorch_table(arguments):
    found, _ = benchmarks(arguments.files[0])
    rows = []
    for torch in torch_rows(arguments.files[1]):
        shape = f"{SHAPES[torch['model']]}_b{torch['sequences']}_t{torch['tokens']}"
        ours = found.get(f"cuda/{shape}/bf16/{torch['attention']}/auto")
        theirs = torch["tokens_per_s"]
        rows.append([f"{shape} {torch['attention']}", f"{ours['tokens/s']:,.0f}" if ours else "-",
                     f"{theirs:,.0f}", f"{ours['tokens/s'] / theirs:.2f}" if ours else "-",
                     f"{torch['peak_memory_bytes'] / 1e9:.1f} GB"])
        version = torch["torch"]
    if not rows:
        sys.exit("PyTorch measured nothing")
    print(f"Side by side with PyTorch {version}: torch.compile, bf16 autocast, fused AdamW, tokens a second.\n")
    print_table(["shape", "keen", "PyTorch", "keen / PyTorch", "PyTorch's memory"], rows)


# Tokens a second on one H200 in bf16 at T = 1024 that keen must and should reach.
RATES = {"124m": ("GPT-2 124M", "gpt2-124m", 560e3, 620e3), "1558m": ("GPT-2 1558M", "gpt2-1558m", 56e3, 60e3)}
# What SSMax may cost beside softmax, as parts of a step's time.
COSTS = {"rope162m": ("SSMax beside softmax, RoPE", 0.01, 0.005),
         "124m": ("SSMax beside softmax, learned positions", 0.015, 0.015)}


def goals_table(arguments):
    found, _ = benchmarks(arguments.files[0])
    torch = torch_rows(arguments.files[1])
    rates = {}  # of a shape and a kind of attention
    for name, entry in found.items():
        match = re.fullmatch(r"cuda/([a-z0-9]+)_b\d+_t1024/bf16/(softmax|ssmax)/auto", name)
        if match:
            rates.setdefault(match.groups(), {})[name.split("/")[1]] = entry["tokens/s"]

    def verdict(must, goal):
        return "goal reached" if goal else "must reached" if must else "missed"

    rows = []
    for shape, (text, model, must, goal) in RATES.items():
        ours = max(rates.get((shape, "softmax"), {}).values(), default=None)
        theirs = max((row["tokens_per_s"] for row in torch if row["model"] == model and row["attention"] == "softmax"),
                     default=None)
        rows.append([f"{text}, tokens/s", f"{must:,.0f}", f"{goal:,.0f}", f"{ours:,.0f}" if ours else "-",
                     f"{theirs:,.0f}" if theirs else "-", f"{ours / theirs:.2f}" if ours and theirs else "-",
                     verdict(ours >= must, ours >= goal) if ours else "not measured"])
    for shape, (text, must, goal) in COSTS.items():
        softmax, ssmax = rates.get((shape, "softmax"), {}), rates.get((shape, "ssmax"), {})
        costs = [softmax[name] / ssmax[name] - 1 for name in softmax.keys() & ssmax.keys()]
        cost = max(costs, default=None)
        rows.append([text, f"{must:.1%}", f"{goal:.1%}", f"{cost:.2%}" if costs else "-", "-", "-",
                     verdict(cost < must, cost < goal) if costs else "not measured"])
    print("What keen is meant to reach on one H200 (bf16, T = 1024), beside compiled PyTorch on the card of this report. "
          "Rates\nare the best of the batch sizes measured, costs of SSMax the largest.\n")
    print_table(["", "must", "goal", "keen", "PyTorch", "keen / PyTorch", ""], rows)


COMMANDS = {"losses": compare_losses, "steps": steps_table, "kernels": kernels_table, "pytorch": pytorch_table,
            "goals": goals_table}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for name, losses in (("a", [3.0, 2.0, 1.0]), ("b", [3.0, 2.0005, 1.0])):
            run = pathlib.Path(folder, name)
            run.mkdir()
            rows = [{"kind": "event"}] + [{"kind": "train", "step": i, "loss": x} for i, x in enumerate(losses)]
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            runs.append(str(run))
        for below, fails in ((1e-3, False), (1e-4, True)):
            failed = False
            try:
                compare_losses(argparse.Namespace(files=runs, below=below))
            except SystemExit:
                failed = True
            assert failed == fails, below
        bench = pathlib.Path(folder, "bench.json")
        bench.write_text(json.dumps({"context": {"device": "NVIDIA H200"}, "benchmarks": [
            {"name": "cuda/124m_b32_t1024/bf16/softmax/auto/iterations:20/real_time", "run_type": "iteration",
             "real_time": 50.0, "time_unit": "ms", "tokens/s": 655360.0, "flops_per_token": 8e8},
            {"name": "cuda/1558m_b32_t1024/bf16/softmax/auto", "error_occurred": True, "error_message": "no memory"}]}))
        torch = pathlib.Path(folder, "torch.jsonl")
        torch.write_text(json.dumps({"model": "gpt2-124m", "sequences": 32, "tokens": 1024, "attention": "softmax",
                                     "tokens_per_s": 327680.0, "peak_memory_bytes": 2e10, "torch": "2"}) + "\n")
        steps_table(argparse.Namespace(files=[bench]))
        pytorch_table(argparse.Namespace(files=[bench, torch]))
        with contextlib.redirect_stdout(io.StringIO()) as goals:
            goals_table(argparse.Namespace(files=[bench, torch]))
            goals_table(argparse.Namespace(files=[folder + "/nothing", folder + "/nothing"]))
        rows = [line for line in goals.getvalue().splitlines() if line.startswith("| GPT-2 124M")]
        assert "| 655,360 | 327,680 | 2.00 | goal reached |" in rows[0] and "not measured" in rows[1], rows
        pathlib.Path(folder, "torn.json").write_text("{")
        assert benchmarks(folder)[1][-1] == "torn: did not end"
        found, errors = benchmarks(bench)
        assert list(found) == ["cuda/124m_b32_t1024/bf16/softmax/auto"] and len(errors) == 1, (found, errors)
    print("self-test: passed")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--below", type=float, default=1e-3, help="of losses: the difference that is too large (1e-3)")
    arguments = parser.parse_args()
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    main()
