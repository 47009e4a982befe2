#!/usr/bin/env python3
"""study_summary.py RUNS RESULTS: writes RESULTS/README.md from what scripts/study.sh left there.

Every number comes out of the JSON documents of `keen eval`, `keen recall` and `keen needle` in RESULTS, or out of the
metrics and the losses by position in RUNS; nothing is computed but means, and standard deviations over seeds.
"""

import csv
import datetime
import json
import math
import platform
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

VARIANTS = {
    "a": "softmax",
    "b": "SSMax",
    "c": "SSMax, s = 1 fixed",
    "d": "SSMax with b",
    "e": "SSMax swapped into a-1 after its end, a twentieth of the steps more",
    "h": "as e, but softmax stays: what those steps alone do",
    "f80": "SSMax swapped into a-1 at 80 % of its steps",
    "f90": "the same at 90 %",
    "f95": "the same at 95 %",
    "g": "as f80, from s = 0 and b = 1",
}


def group_of(checkpoint):
    """ "runs/study/text/a-2" is of the group "a"."""
    return re.sub(r"-\d+$", "", Path(checkpoint).name)


def groups(entries):
    """Checkpoint entries by group, in their order."""
    found = defaultdict(list)
    for entry in entries:
        found[group_of(entry["checkpoint"])].append(entry)
    return found


def spread(values, digits=4, factor=1, sign=""):
    """ "3.4412 ± 0.0031": mean and standard deviation over seeds; alone the value."""
    values = [factor * value for value in values]
    text = f"{statistics.mean(values):{sign}.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def share(right, trials):
    """ "96 (90-98)": a share in percent and its Wilson interval of 95 %."""
    z = 1.959963984540054
    p, shrink = right / trials, 1 + z * z / trials
    middle = (p + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return f"{100 * p:.0f} ({100 * max(0, middle - half):.0f}-{100 * min(1, middle + half):.0f})"


def table(header, rows):
    lines = [header, ["---"] * len(header)] + rows
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


class Study:
    def __init__(self, runs, results):
        self.runs, self.results = Path(runs), Path(results)

    def load(self, name):
        path = self.results / f"{name}.json"
        document = json.loads(path.read_text()) if path.exists() else None
        return [document] if isinstance(document, dict) and "loss" in document else document

    def documents(self, *named):
        """Of pairs of a name and what to call it, those whose results are there, with the document."""
        for name, words in named:
            document = self.load(name)
            if document:
                yield name, words, document

    def rows(self, run, kind):
        found = {}
        with open(self.runs / run / "metrics.jsonl") as lines:
            for line in lines:
                row = json.loads(line)
                if row["kind"] == kind:
                    found[row["step"]] = row  # the last row of a step counts
        return [found[step] for step in sorted(found)]

    def figure(self, name, words):
        return f"![{words}]({name}.svg)\n" if (self.results / f"{name}.svg").exists() else ""

    # --- Sections -------------------------------------------------------------------------------------------------

    def head(self):
        environment = json.loads((self.runs / "text/a-1/environment.json").read_text())
        config = json.loads((self.runs / "text/a-1/config.json").read_text())
        model, batch, steps = config["model"], config["batch"], config["schedule"]["steps"]
        tokens = batch["sequences"] * model["context"]
        machine = environment["gpu"] or next(
            (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
            platform.machine(),
        )
        return (
            "# The study\n\n"
            "Written by `scripts/study.sh`; every number is out of the JSON files beside this page, or out of the runs. "
            "± is the standard deviation over seeds, where there are several; where there is none, one seed was run. Forks "
            "(e to h) come from a-1 alone, so compare them with it.\n\n"
            f"Text: {model['layers']} layers x {model['width']}, context {model['context']}, {steps} steps of {tokens} "
            f"tokens, in {environment['precision']} on {environment['device']} ({machine}, {environment['threads']} "
            f"threads). {datetime.date.today():%-d %B %Y}, keen {environment['keen']}.\n\n"
            + table(["variant", "attention"], [[key, words] for key, words in VARIANTS.items()])
        )

    def training(self):
        document = self.load("text")
        loss = {Path(entry["checkpoint"]).name: entry["loss"] for entry in document}
        rows = []
        for group, entries in groups(document).items():
            names = [Path(entry["checkpoint"]).name for entry in entries]
            last = [self.rows(f"text/{name}", "validation")[-1]["loss"] for name in names]
            minus = [loss[name] - loss["a-" + name.rsplit("-", 1)[1]] for name in names]
            rows.append(
                [group, str(len(entries)), spread(last), spread([loss[name] for name in names])]
                + ["" if group == "a" else spread(minus, sign="+")]
            )
        text = "## Training on text\n\nLoss in nats a token, at the context of training. The last column is the difference on "
        text += "all validation data to the softmax run of the same seed.\n\n"
        text += table(["variant", "seeds", "last validation", "all validation data", "minus a of that seed"], rows)
        for entry in self.load("text-untrained") or []:
            text += f"\nSSMax swapped into a-1 without any training: {entry['loss']:.4f} on all validation data, "
            text += f"{entry['loss'] - loss['a-1']:+.4f} against a-1.\n"
        return text + "\n" + self.figure("text-training-loss", "Training loss on text")

    def positions(self):
        context = json.loads((self.runs / "text/a-1/config.json").read_text())["model"]["context"]
        text = f"## Loss by position, trained on {context} tokens\n\n"
        for name, words in (
            ("text-trained", "theta as trained"),
            ("text-trained-theta", "theta x 50"),
            ("text-swapped", "forks, theta as trained"),
            ("text-swapped-theta", "forks, theta x 50"),
        ):
            path = self.runs / f"{name}.csv"
            if not path.exists():
                continue
            losses = defaultdict(lambda: defaultdict(list))  # of a checkpoint, by range
            with open(path) as lines:
                last = 0
                for row in csv.DictReader(lines):
                    position = int(row["position"])
                    factor = 4 ** max(0, math.ceil(math.log(position / context, 4)))
                    losses[row["checkpoint"]][factor].append(float(row["loss"]))
                    last = max(last, position)
            factors = sorted(next(iter(losses.values())))
            ends = [min(factor * context, last) for factor in factors]
            header = [words] + [f"{b + 1} to {e}" for b, e in zip([0] + ends, ends)]
            of_groups = defaultdict(list)
            for checkpoint, by_range in losses.items():
                of_groups[group_of(checkpoint)].append([statistics.mean(by_range[factor]) for factor in factors])
            rows = []
            for group, members in of_groups.items():
                label = "a-1" if group == "a" and len(members) == 1 else group
                rows.append([label] + [spread(values, 3) for values in zip(*members)])
            text += table(header, rows) + "\n" + self.figure(name, f"Loss by position, {words}") + "\n"
        return text

    def recall(self):
        text = "## Recall: right answers, in percent\n\nBy context in tokens. For one run, in parentheses: the standard error "
        text += "over the windows.\n\n"
        for name, words, document in self.documents(
            ("recall-trained", "theta as trained"),
            ("recall-trained-theta", "theta x 50"),
            ("recall-swapped", "forks, theta as trained"),
            ("recall-swapped-theta", "forks, theta x 50"),
            ("rotary", "other heads, theta as trained"),
            ("rotary-theta", "other heads, theta x 50"),
        ):
            checkpoints = document["checkpoints"]
            contexts = [str(score["context"]) for score in checkpoints[0]["scores"]]
            rows = []
            for group, entries in groups(checkpoints).items():
                if len(entries) > 1:
                    columns = zip(*[[score["accuracy"] for score in entry["scores"]] for entry in entries])
                    rows.append([group] + [spread(column, 1, 100) for column in columns])
                else:
                    scores = entries[0]["scores"]
                    cells = [f"{100 * s['accuracy']:.1f} ({100 * s['accuracy_stderr']:.1f})" for s in scores]
                    rows.append(["a-1" if group == "a" else group] + cells)
            text += table([words] + contexts, rows) + "\n" + self.figure(name, f"Recall, {words}") + "\n"
        text += (
            "half, quarter: only the fastest half or quarter of a head's pairs rotate (`rope_fraction`); qk-norm: queries "
            "and keys are normed.\n\n"
        )
        return text + self.figure("recall-training-loss", "Training loss on the recall task")

    def needles(self):
        text = "## Needles found, in percent\n\nBy context in tokens, all depths together, with the Wilson interval of 95 %. "
        text += "A row a run: runs of one kind differ in whether they learned to answer at all.\n\n"
        for name, words, document in self.documents(("needle", "theta as trained"), ("needle-theta", "theta x 50")):
            rows = []
            for entry in document["checkpoints"]:
                right = defaultdict(lambda: [0, 0])
                for cell in entry["cells"]:
                    right[cell["context"]][0] += cell["correct"]
                    right[cell["context"]][1] += cell["trials"]
                rows.append(
                    [Path(entry["checkpoint"]).name]
                    + [share(*right[context]) for context in document["contexts"]]
                )
            text += table([words] + [str(context) for context in document["contexts"]], rows)
            text += "\n" + self.figure(name, f"Needles found, {words}") + "\n"
        return text

    def scores(self):
        text = "## Needle scores\n\n"
        for name, words, document in self.documents(("needle-scores", "theta as trained"), ("needle-scores-theta", "theta x 50")):
            rows = []
            for entry in document["checkpoints"]:
                top, by_outcome = entry["heads"][0], defaultdict(list)
                for cell in entry["cells"]:
                    for answer in cell["answers"]:
                        by_outcome[answer["found"]].append(answer["top"]["score"])
                row = [Path(entry["checkpoint"]).name, f"layer {top['layer']}, head {top['head']}: {top['score']:.3f}"]
                for found in ("number", "first_digit", "nothing"):
                    values = by_outcome[found]
                    row.append(f"{statistics.mean(values):.3f} ({len(values)})" if values else "- (0)")
                rows.append(row)
            context = document["contexts"][0]
            text += f"Context {context}, depth {document['depths'][0]:g} %, {document['trials']} trials, {words}: the head "
            text += "with the highest mean score, and the mean of each trial's top score by what was answered.\n\n"
            text += table(["run", "best head", "all digits (trials)", "first digit", "not even that"], rows)
            text += "\n" + self.figure(name, f"Needle scores, {words}") + "\n"
        return text

    def learned(self):
        rows = []
        for part in ("text", "recall"):
            for variant in ("b-1", "d-1", "e-1", "f80-1", "f90-1", "f95-1", "g-1"):
                if not (self.runs / part / variant / "metrics.jsonl").exists():
                    continue
                found = self.rows(f"{part}/{variant}", "attention")
                if not found:
                    continue
                first, last = ([s for layer in row["layers"] for s in layer.get("s", [])] for row in (found[0], found[-1]))
                if last:
                    start = f"{statistics.mean(first):.3f}" if len(found) > 1 else ""
                    rows.append(
                        [f"{part}, {variant}", start, f"{statistics.mean(last):.3f}", f"{min(last):.3f}", f"{max(last):.3f}"]
                    )
        text = "## Learned s\n\nOver all heads, at the run's first evaluation and at its end.\n\n"
        text += table(["run", "mean at first", "mean at the end", "lowest", "highest"], rows) + "\n"
        return text + self.figure("text-learned-s", "s of each head on text") + self.figure(
            "recall-learned-s", "s of each head on the recall task"
        )

    def write(self):
        sections = [self.head(), self.training(), self.positions()]
        if self.load("recall-trained"):
            sections.append(self.recall())
        sections += [self.needles(), self.scores(), self.learned()]
        (self.results / "README.md").write_text("\n".join(section.rstrip() + "\n" for section in sections))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    Study(*sys.argv[1:]).write()


if __name__ == "__main__":
    main()
