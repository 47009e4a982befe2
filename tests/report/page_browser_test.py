#!/usr/bin/env python3
"""Opens the page of `keen compare --html` in a headless Chromium and does with it what people do.

usage: page_browser_test.py KEEN

Ends with 77, which CTest takes as skipped, where there is no Chromium (KEEN_CHROMIUM names one that is not on PATH).
"""

import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from browser import Browser, find_browser
from crafted_runs import Run, config

HOSTILE = '<img src=x onerror=boom()> & "quotes"'
HOSTILE_VALUE = "</script><script>boom()</script><b>val</b>_*.bin"


def make_runs(folder):
    """A baseline, SSMax that was resumed and has a spike, a fork of the baseline, a live run, and seeds."""
    runs = {
        "base": Run(config(400)).event("start").train(400).event("stop", reason="done"),
        HOSTILE: Run(config(400, "ssmax_bias", data={"train": HOSTILE_VALUE, "validation": "val.bin"}), 2, 2.9)
        .event("start")
        .train(200, heads=2, layers=2, b=True)
        .event("resume", changed={"log.every": [1, 10]})
        .train(200, heads=2, layers=2, b=True, spikes={300}, non_finite={350})
        .event("stop", reason="done"),
        "fork": Run(
            config(200, "ssmax", init={"from": "base/checkpoints/step_00000300", "step": "reset"}), 3, 2.8, slope=5
        )
        .event("fork", parent="base/checkpoints/step_00000300", parent_step=300, loss_before=4.1, loss_after=4.2)
        .train(200, heads=2, layers=2)
        .event("stop", reason="done"),
        "live": Run(config(400, "ssmax"), 4, 2.95).event("start").train(100, heads=2, layers=2),
    }
    for name, run in runs.items():
        run.write(folder / name, tail='{"kind":"train","step":101,"tok' if name == "live" else "")
    for seed in (1, 2, 3):
        Run(config(100, seed=seed), seed, 3 + 0.01 * seed**2).event("start").train(100).event(
            "stop", reason="done"
        ).write(folder / "seeds" / f"seed-{seed}")
    return runs


def number(text):
    """A cell of the table as a number and how far it may be off by rounding; None for words."""
    text = text.lstrip("~").replace(",", "").split(" ± ")[0].split(" of ")[0]
    match = re.fullmatch(r"([+-]?\d+(?:\.(\d+))?)([kMBT]?)", text)
    if not match:
        return None
    unit = {"": 1, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[match.group(3)]
    digits = len(match.group(2) or "")
    return float(match.group(1)) * unit, 0.51 * unit * 10**-digits


class PageTest(unittest.TestCase):
    keen = browser = None

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="keen-page-")
        cls.root = pathlib.Path(cls.folder.name)
        cls.runs = make_runs(cls.root)
        cls.names = list(cls.runs)
        cls.json = cls.compare("page.html", *cls.names)
        cls.url = (cls.root / "page.html").as_uri()
        cls.browser = Browser(find_browser())
        cls.browser.__enter__()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.addClassCleanup(cls.browser.__exit__)

    @classmethod
    def compare(cls, page, *arguments):
        done = subprocess.run(
            [cls.keen, "compare", *arguments, "--html", page, "--json"],
            cwd=cls.root,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        return json.loads(done.stdout)

    def setUp(self):
        self.browser.complaints.clear()
        self.browser.call("Emulation.setEmulatedMedia", media="", features=[])
        self.browser.resize(1280, 900)
        self.browser.open("about:blank")
        self.browser.open(self.url)

    def tearDown(self):
        self.assertEqual(self.browser.complaints, [])

    # --- what the tests do and see ---

    def see(self, expression):
        return self.browser.evaluate(expression)

    def point_at(self, selector, index=0):
        """The middle of an element, scrolled into view."""
        return self.see(f"""(() => {{
            const node = document.querySelectorAll({json.dumps(selector)})[{index}];
            node.scrollIntoView({{ block: "center" }});
            const box = node.getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2];
        }})()""")

    def click(self, selector, index=0, count=1):
        self.browser.click(*self.point_at(selector, index), count=count)

    def choose(self, name, value):
        self.click(f'input[name="{name}"][value="{value}"] + span')

    def tick(self, name):
        self.click(f'input[name="{name}"] + span')

    def plot(self, x, y, panel=0):
        """A place on a panel, in parts of the plot's width and height, in pixels of the window."""
        return self.see(f"""(() => {{
            const chart = panels[{panel}];
            chart.base.scrollIntoView({{ block: "center" }});
            const box = chart.base.getBoundingClientRect();
            const across = chart.width - margin.left - margin.right;
            return [box.left + margin.left + {x} * across, box.top + margin.top + {y} * chart.plotHeight()];
        }})()""")

    def pixels(self, run, panel=0):
        """How many pixels of a plot have the colour of a run's line."""
        return self.see(f"""(() => {{
            const {{ base }} = panels[{panel}], {{ colour }} = styleOf(runs[{run}]);
            const wanted = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
            const copy = new OffscreenCanvas(base.width, base.height).getContext("2d", {{ willReadFrequently: true }});
            copy.drawImage(base, 0, 0);
            const {{ data }} = copy.getImageData(0, 0, base.width, base.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
                if (wanted.every((value, k) => Math.abs(data[i + k] - value) < 12)) count++;
            return count;
        }})()""")

    def picture(self, panel=0):
        return self.see(f"panels[{panel}].base.toDataURL()")

    # --- the tables ---

    def test_the_table_shows_the_numbers_of_json(self):
        rows = self.see("""[...document.querySelectorAll("#results tbody tr")].map((row) =>
            [row.dataset.key, ...[...row.querySelectorAll("td")].map((cell) => cell.textContent)])""")
        compared = 0
        for key, *cells in rows:
            self.assertEqual(len(cells), len(self.names))
            for cell, run in zip(cells, self.json["runs"]):
                value = run.get(key)
                if number(cell) is None or not isinstance(value, (int, float)):
                    self.assertTrue(
                        value is None
                        or not isinstance(value, float)
                        or " " in cell
                        or key in run["missing"]
                        or cell in ("baseline", ""),
                        (key, cell, value),
                    )
                    continue
                shown, rounding = number(cell)
                self.assertAlmostEqual(
                    shown,
                    value,
                    delta=max(rounding, 0.0051 * abs(value) if rounding >= 1 else 0),
                    msg=f"{key} of {run['name']}",
                )
                self.assertEqual(cell.startswith("~"), key in run["interpolated"], (key, cell))
                compared += 1
        self.assertGreater(compared, 25)
        names = self.see('[...document.querySelectorAll("#results thead th")].map((cell) => cell.textContent)')
        self.assertEqual(names, [run["name"] for run in self.json["runs"]])
        keys = self.see('[...document.querySelectorAll("#config tbody tr")].map((row) => row.dataset.key)')
        self.assertEqual(keys, list(self.json["config_differences"]))

    def test_text_of_runs_is_only_text(self):
        self.assertIn(HOSTILE, self.see("document.title"))
        self.assertIn(HOSTILE, self.see('document.querySelector("#legend").textContent'))
        self.assertIn(HOSTILE_VALUE, self.see('document.querySelector("#config").textContent'))
        self.browser.mouse("mouseMoved", *self.plot(0.3, 0.5))
        self.browser.settle()
        self.assertIn(HOSTILE, self.see("panels[0].tip.textContent"))
        self.assertEqual(
            self.see('[...document.querySelectorAll("img, #config b, #results b, #legend b, [onerror]")].length'), 0
        )
        self.assertEqual(self.see("typeof boom"), "undefined")

    def asked_for(self):
        """What the page asked of the network, or of the disk."""
        asked = [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("about:", "data:"))]

    def test_nothing_is_asked_of_the_network(self):
        self.assertEqual(self.asked_for(), [self.url])

    # --- the curves ---

    def test_curves_hold_what_was_logged(self):
        for index, (name, run) in enumerate(self.runs.items()):
            loss = self.see(f"Array.from(runs[{index}].train.loss, (loss) => Number.isFinite(loss) ? loss : null)")
            logged = run.column("train", "loss")
            self.assertEqual(len(loss), len(logged), name)
            for read, value in zip(loss, logged):
                if value is None:
                    self.assertIsNone(read)
                else:
                    self.assertAlmostEqual(read, value, delta=1e-6)
            self.assertEqual(self.see(f"Array.from(runs[{index}].validation.step)"), run.column("validation", "step"))

    def test_every_run_is_drawn_and_can_be_hidden(self):
        for index in range(len(self.names)):
            self.assertGreater(self.pixels(index), 60, self.names[index])
        for index in range(2):
            self.assertGreater(self.pixels(index, panel=1), 60, "the difference is there without a click")
        self.assertGreater(self.pixels(0, panel=2), 60)
        self.assertGreater(self.pixels(0, panel=3), 60)
        self.click("#legend button", 1)
        self.assertEqual(self.pixels(1), 0)
        self.assertGreater(self.pixels(0), 60)
        self.assertEqual(
            self.see('document.querySelectorAll("#legend button")[1].getAttribute("aria-pressed")'), "false"
        )
        self.see('document.querySelectorAll("#legend button")[1].focus()')
        for kind in ("keyDown", "keyUp"):
            self.browser.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                code="Enter",
                text="\r" if kind == "keyDown" else "",
                windowsVirtualKeyCode=13,
            )
        self.browser.settle()
        self.assertGreater(self.pixels(1), 60, "the keyboard shows it again")
        self.click("#legend button", 2, count=2)
        self.assertEqual([self.pixels(index) > 0 for index in range(4)], [False, False, True, False])

    def test_the_horizontal_axis(self):
        last = {"steps": 500, "tokens": 500 * 1024, "seconds": None, "flops": None}
        seconds = [sum(self.runs[name].column("train", "step_ms")) / 1000 for name in ("base", "fork")]
        origin = self.json["runs"][2]["origin"]
        self.assertEqual((origin["step"], origin["tokens"]), (300, 300 * 1024))
        last["seconds"] = max(seconds[0], origin["seconds"] + seconds[1])
        last["flops"] = origin["flops"] + self.json["runs"][2]["flops_per_token"] * 200 * 1024
        pictures = set()
        for measure, end in last.items():
            self.choose("measure", measure)
            low, high = self.see("view.rangeX()")
            self.assertEqual(low, 0)
            self.assertAlmostEqual(high / end, 1, delta=2e-3, msg=measure)
            self.assertIn(measure, self.see("location.hash") or "measure=tokens")
            pictures.add(self.picture())
        self.assertEqual(len(pictures), 4)

    def test_logarithmic_axes(self):
        linear = self.picture()
        self.tick("logX")
        self.assertEqual(self.see("view.rangeX()"), [1024, 500 * 1024])
        middle = self.see(
            "panels[0].sx.pixel(1024 * Math.sqrt(500)) - (panels[0].sx.pixel(1024) + panels[0].sx.pixel(512000)) / 2"
        )
        self.assertAlmostEqual(middle, 0, delta=1e-6)
        self.tick("logY")
        low, high = self.see("[panels[0].sy.min, panels[0].sy.max]")
        middle = self.see(
            f"(({{ pixel }}) => pixel({math.sqrt(low * high)}) - (pixel({low}) + pixel({high})) / 2)(panels[0].sy)"
        )
        self.assertAlmostEqual(middle, 0, delta=1e-6)
        self.assertNotEqual(self.picture(), linear)
        self.tick("logX")
        self.tick("logY")
        self.assertEqual(self.picture(), linear)

    def test_the_first_steps_do_not_flatten_the_rest(self):
        self.assertLess(self.see("panels[0].sy.max"), 9)
        self.tick("full")
        self.assertGreater(self.see("panels[0].sy.max"), 9.5)

    def test_the_difference_to_the_baseline(self):
        zero = self.see("[...panels[1].shown.curves[0].y]")
        self.assertEqual((set(zero), len(zero)), ({0}, 400), "the baseline is the zero line")
        self.assertLess(self.see("panels[1].sy.min"), 0)
        self.assertEqual(self.see("[panels[1].sx.min, panels[1].sx.max]"), self.see("view.rangeX()"))
        points = self.see("[...panels[1].shown.curves.find((curve) => curve.members[0].index === 1).points.y]")
        own, base = (self.runs[name].column("validation", "loss") for name in (HOSTILE, "base"))
        for shown, a, b in zip(points, own, base, strict=True):
            self.assertAlmostEqual(shown, a - b, delta=2e-6)
        readout = self.see('panels[1].readout.querySelector("b").textContent')
        self.assertAlmostEqual(float(readout.replace("−", "-")), own[-1] - base[-1], delta=6e-5)
        # Of the fork, steps 325 to 400 lie on the baseline's curve, and its own steps 25 to 100.
        fork = self.see("[...panels[1].shown.curves.find((curve) => curve.members[0].index === 2).points.y]")
        forked = self.runs["fork"].column("validation", "loss")
        for k in range(8):
            if k < 4:
                self.assertAlmostEqual(fork[k], forked[k] - base[12 + k], delta=2e-6)
            else:
                self.assertIsNone(fork[k])
        self.tick("aligned")
        fork = self.see("[...panels[1].shown.curves.find((curve) => curve.members[0].index === 2).points.y]")
        self.assertAlmostEqual(fork[7], forked[7] - base[7], delta=2e-6)
        hidden = "panels.slice(0, 2).map(({ figure }) => figure.hidden)"
        self.assertEqual(self.see(hidden), [False, False])
        self.choose("show", "difference")
        self.assertEqual(self.see(hidden), [True, False])
        self.assertGreater(self.see("panels[1].height"), 400, "alone it has the room of both")
        self.choose("show", "loss")
        self.assertEqual(self.see(hidden), [False, True])
        self.assertIn("show=loss", self.see("location.hash"))

    def test_no_difference_without_a_second_run(self):
        self.compare("alone.html", "base")
        self.browser.open((self.root / "alone.html").as_uri())
        self.assertTrue(self.see("panels[1].figure.hidden"))
        self.assertEqual(self.see("document.querySelectorAll('input[name=show]').length"), 0)
        self.assertGreater(self.pixels(0), 60)

    def test_a_short_run_is_not_cut_off(self):
        """The gradient norm of a fork that is ten times its parent's, over a tenth of the axis."""
        loud = Run(config(40, "ssmax", init={"from": "base/checkpoints/step_00000400", "step": "reset"}), 8)
        loud.event("fork", parent="base/checkpoints/step_00000400", parent_step=400).train(40)
        for row in loud.rows:
            if row["kind"] == "train":
                row["grad_norm"] *= 10
        loud.write(self.root / "loud")
        self.compare("loud.html", "base", "loud")
        self.browser.open((self.root / "loud.html").as_uri())
        norms = sorted(loud.column("train", "grad_norm"))
        self.assertGreater(self.see("panels[2].sy.max"), norms[36])
        lowest = min(self.runs["base"].column("train", "grad_norm"))
        self.assertLess(self.see("panels[2].sy.min"), lowest)

    def test_ranges_are_those_of_the_figures(self):
        values = "[...Array(101).keys(), 1000, -1000]"
        self.assertEqual(self.see(f"robustRange({values}, false)[0]"), -1000)
        above, both = self.see(f"robustRange({values}, false)[1]"), self.see(f"robustRange({values}, true)")
        ordered = sorted([*range(101), 1000, -1000])
        q10, q90 = (ordered[int(k)] + (k - int(k)) * (ordered[int(k) + 1] - ordered[int(k)]) for k in (10.2, 91.8))
        self.assertAlmostEqual(above, q90 + (q90 - q10) / 4)
        self.assertAlmostEqual(both[0], q10 - (q90 - q10))
        self.assertAlmostEqual(both[1], q90 + (q90 - q10))

    def test_what_is_cut_off_is_said_beside_the_title(self):
        self.assertIn("↑ up to 9.9", self.see("panels[0].cut.textContent"))
        self.tick("full")
        self.assertEqual(self.see("panels[0].cut.textContent"), "")

    def test_smoothing_is_the_debiased_average(self):
        self.choose("measure", "steps")
        scale = self.see("view.scale()")
        self.assertAlmostEqual(scale, 0.01 * 399, msg="a part of the longest curve, from step 1 to 400")
        shown = self.see("[...panels[0].shown.curves[1].y].map((y) => Number.isFinite(y) ? y : null)")
        raw = self.runs[HOSTILE].column("train", "loss")
        for i in (0, 1, 7, 200, 348, 350, 399):
            weights = [(math.exp(-(i - j) / scale), raw[j]) for j in range(i + 1) if raw[j] is not None]
            expected = sum(w * y for w, y in weights) / sum(w for w, _ in weights)
            self.assertAlmostEqual(shown[i], expected, delta=2e-6, msg=f"step {i + 1}")
        self.assertIsNone(shown[349], "not finite")
        points = self.see("[...panels[0].shown.curves[1].points.y]")
        for read, value in zip(points, self.runs[HOSTILE].column("validation", "loss"), strict=True):
            self.assertAlmostEqual(read, value, delta=1e-6, msg="validation is never smoothed")
        x, y = self.point_at("input[name=none], .slider input")
        self.browser.click(x - 64, y)
        self.assertEqual(self.see("view.smoothing"), 0)
        shown = self.see("[...panels[0].shown.curves[0].y]")
        self.assertAlmostEqual(shown[123], self.runs["base"].column("train", "loss")[123], delta=1e-6)

    def test_zoom_by_mouse(self):
        full = self.see("view.rangeX()")
        width = full[1] - full[0]
        self.browser.drag(*self.plot(0.25, 0.5), *self.plot(0.5, 0.5))
        low, high = self.see("view.rangeX()")
        self.assertAlmostEqual(low, full[0] + 0.25 * width, delta=0.01 * width)
        self.assertAlmostEqual(high, full[0] + 0.5 * width, delta=0.01 * width)
        self.browser.drag(*self.plot(0.5, 0.5), *self.plot(0.25, 0.5), modifiers=8)
        moved = self.see("view.rangeX()")
        self.assertAlmostEqual(moved[0] - low, 0.25 * (high - low), delta=0.01 * width, msg="shift moves")
        x, y = self.plot(0.5, 0.5)
        self.browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-100, modifiers=2)
        self.browser.settle()
        zoomed = self.see("view.rangeX()")
        self.assertLess(zoomed[1] - zoomed[0], 0.95 * (moved[1] - moved[0]))
        self.assertIn("zoom=", self.see("location.hash"))
        self.browser.click(x, y, count=2)
        self.assertEqual(self.see("view.rangeX()"), full)
        self.browser.drag(*self.plot(0.3, 0.2), *self.plot(0.6, 0.7))
        low, high = self.see("[panels[0].sy.min, panels[0].sy.max]")
        self.assertIsNotNone(self.see("panels[0].zoomY"), "a high rectangle zooms along y as well")
        self.assertLess(low, high)
        self.click("#controls button")
        self.assertEqual(self.see("view.rangeX()"), full)
        self.assertIsNone(self.see("panels[0].zoomY"))

    def test_fingers_zoom(self):
        full = self.see("view.rangeX()")
        (x0, y), (x1, _) = self.plot(0.4, 0.5), self.plot(0.6, 0.5)
        touch = lambda kind, *xs: self.browser.call(
            "Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y, "id": i} for i, x in enumerate(xs)]
        )
        touch("touchStart", x0, x1)
        touch("touchMove", x0 - 100, x1 + 100)
        touch("touchEnd")
        self.browser.settle()
        low, high = self.see("view.rangeX()")
        self.assertLess(high - low, 0.7 * (full[1] - full[0]))
        self.assertAlmostEqual((low + high) / 2, 0.5 * full[1], delta=0.05 * full[1])

    def test_the_cursor_shows_all_values(self):
        self.choose("measure", "steps")
        self.browser.mouse("mouseMoved", *self.plot(200 / 500, 0.3))
        self.browser.settle()
        self.assertAlmostEqual(self.see("view.cursor"), 200, delta=1)
        self.see("view.setCursor(200)")
        self.browser.settle()
        lines = self.see("""[...panels[0].tip.querySelectorAll("tr")]
            .map((row) => [...row.children].map((cell) => cell.textContent.trim()))""")
        self.assertEqual(lines[0], ["", "train", "raw", "validation"])
        values = {line[0]: line[1:] for line in lines[1:]}
        self.assertEqual(list(values), ["base", HOSTILE], "the live run ends at 100, the fork begins at 300")
        for name in values:
            self.assertAlmostEqual(float(values[name][1]), self.runs[name].column("train", "loss")[199], delta=6e-5)
            self.assertAlmostEqual(float(values[name][2]), self.runs[name].column("validation", "loss")[7], delta=6e-5)
        self.see("view.setCursor(210)")
        self.browser.settle()
        self.assertIn("~", self.see("panels[0].tip.textContent"), "between two validations")
        self.see("panels[0].base.focus()")
        before = self.see("view.cursor")
        for kind in ("keyDown", "keyUp"):
            self.browser.call(
                "Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39
            )
        self.browser.settle()
        self.assertGreater(self.see("view.cursor"), before)

    def test_marks_and_forks(self):
        self.choose("measure", "steps")
        marks = self.see(
            "panels[0].shown.curves.map((curve) => curve.marks.map(({ kind, x }) => [kind, Math.round(x)]))"
        )
        self.assertEqual(sorted(marks[1]), [["non_finite", 350], ["resume", 200], ["spike", 300]])
        self.assertEqual(marks[2], [["fork", 300]])
        on_parent = self.see(
            "((curves) => [curves[2].marks[0].y, valueAt(curves[0].x, curves[0].y, 300)])(panels[0].shown.curves)"
        )
        self.assertEqual(*on_parent)
        self.assertEqual(self.see("panels[0].shown.curves[2].x[0]"), 301)
        place = self.see("""(() => {
            const chart = panels[0], mark = chart.shown.curves[1].marks.find(({ kind }) => kind === "resume");
            const box = chart.base.getBoundingClientRect();
            return [box.left + chart.sx.pixel(mark.x), box.top + chart.markY(mark)];
        })()""")
        self.browser.mouse("mouseMoved", *place)
        self.browser.settle()
        self.assertIn("log.every", self.see("panels[0].tip.textContent"))
        self.tick("aligned")
        self.assertEqual(self.see("panels[0].shown.curves[2].x[0]"), 1)

    def test_learned_scales(self):
        self.assertEqual(self.see("blocks.map(({ run }) => run.index)"), [1, 2, 3])
        last = [row for row in self.runs[HOSTILE].rows if row["kind"] == "attention"][-1]
        shown = self.see(
            "headsPanel(runs[1]).curves.map((curve) => [curve.layer, curve.head, curve.y[curve.y.length - 1]])"
        )
        self.assertEqual(len(shown), 4)
        for layer, head, value in shown:
            self.assertAlmostEqual(value, last["layers"][layer]["s"][head], delta=1e-6)
        end = self.see("blocks[0].map.canvas.toDataURL()")
        self.see('document.querySelector("#scale-controls .slider input").value = 0')
        self.see('document.querySelector("#scale-controls .slider input").dispatchEvent(new Event("input"))')
        self.browser.settle()
        self.assertIn("step 25", self.see("blocks[0].map.canvas.getAttribute('aria-label')"))
        self.assertNotEqual(self.see("blocks[0].map.canvas.toDataURL()"), end)
        x, y = self.point_at(".heat canvas")
        self.browser.mouse("mouseMoved", x + 40, y)
        self.browser.settle()
        self.assertIn("head 1: 0.", self.see("blocks[0].map.note.textContent"))
        self.choose("which", "b")
        self.assertEqual(self.see("blocks.map(({ box }) => box.hidden)"), [False, True, True])

    def test_groups_of_seeds(self):
        names = [f"seeds/seed-{seed}" for seed in (1, 2, 3)]
        groups = self.compare("seeds.html", *names)["groups"]
        self.browser.open((self.root / "seeds.html").as_uri())
        curves = self.see("panels[0].shown.curves.length")
        self.assertEqual((len(groups), curves), (1, 1))
        points = self.see("panels[0].shown.curves[0].points")
        final = groups[0]["final_validation_loss"]
        self.assertAlmostEqual(points["y"][-1], final["mean"], delta=1e-6)
        self.assertAlmostEqual(points["high"][-1] - points["y"][-1], final["deviation"], delta=1e-6)
        band = self.see("(({ band, y }) => band.high[50] - y[50])(panels[0].shown.curves[0])")
        self.assertGreater(band, 0)
        self.assertTrue(self.see("panels[1].figure.hidden"), "one group alone has no other to differ from")
        self.tick("grouped")
        self.assertEqual(self.see("panels[0].shown.curves.length"), 3)
        self.assertFalse(self.see("panels[1].figure.hidden"))

    def test_two_groups_of_seeds(self):
        for seed in (1, 2, 3):
            run = Run(config(100, "ssmax", seed=seed), 10 + seed, 2.9 + 0.02 * seed).event("start").train(100)
            run.event("stop", reason="done").write(self.root / "others" / f"seed-{seed}")
        names = [f"{kind}/seed-{seed}" for kind in ("seeds", "others") for seed in (1, 2, 3)]
        groups = self.compare("groups.html", *names)["groups"]
        self.browser.open((self.root / "groups.html").as_uri())
        self.assertEqual(self.see("document.getElementById('title').textContent"), "seeds/seed-*, others/seed-*")
        zero, other = self.see("panels[1].shown.curves.map(({ y, band, reference }) => ({ y, band, reference }))")
        self.assertTrue(zero["reference"])
        self.assertLess(max(map(abs, zero["y"])), 1e-6)
        self.assertGreater(zero["band"]["high"][50], 0.005, "the spread of the baseline's seeds")
        own, base = (groups[k]["final_validation_loss"] for k in (1, 0))
        readout = self.see('panels[1].readout.querySelector("b").textContent').replace("−", "-").split(" ± ")
        self.assertAlmostEqual(float(readout[0]), own["mean"] - base["mean"], delta=6e-5)
        self.assertAlmostEqual(float(readout[1]), own["deviation"], delta=6e-5)
        entries = '[...document.querySelectorAll("#legend button")].filter((button) => button.offsetWidth > 0)'
        self.assertEqual(self.see(f"{entries}.length"), 2, "an entry for each group")
        self.see(f"{entries}[1].click()")
        self.browser.settle()
        self.assertEqual(self.see("[...view.hidden]"), [3, 4, 5])
        self.see(f"{entries}[1].click()")
        self.tick("grouped")
        self.assertEqual(self.see(f"{entries}.length"), 6)

    def test_a_seed_without_validation_does_not_hide_the_others(self):
        Run(config(100, seed=4), 4).event("start").train(100, every=1000).write(self.root / "seeds" / "a-none")
        names = ["seeds/a-none", "seeds/seed-1", "seeds/seed-2"]
        final = self.compare("partial.html", *names)["groups"][0]["final_validation_loss"]
        self.browser.open((self.root / "partial.html").as_uri())
        points = self.see("panels[0].shown.curves[0].points")
        self.assertEqual(final["n"], 2)
        self.assertAlmostEqual(points["y"][-1], final["mean"], delta=1e-6)

    # --- figures ---

    def test_figures_are_images_that_do_nothing(self):
        hostile = self.root / "hostile.svg"
        hostile.write_text(
            """<svg xmlns="http://www.w3.org/2000/svg" width="900" height="300" onload="parent.boom = top.boom = boom()">
            <title>&lt;/script&gt;&lt;img src=x onerror=boom()&gt; "quoted" &amp; more</title>
            <script>top.boom = 1; fetch("https://example.com/script")</script>
            <image href="https://example.com/image.png" width="9" height="9"/>
            <rect x="0" y="0" width="900" height="300" fill="#00ff00"/></svg>"""
        )
        self.compare("drawn.html", "base", "--svg", "drawn")
        figures = ["drawn/training-loss.svg", "hostile.svg", "drawn/validation-loss.svg"]
        self.compare("figures.html", "base", *(word for path in figures for word in ("--figure", path)))
        page = (self.root / "figures.html").as_uri()
        self.browser.open(page)
        shown = self.see("""[...document.querySelectorAll("#figures img")].map((image) =>
            ({ alt: image.alt, width: image.naturalWidth, complete: image.complete }))""")
        titles = [re.search("<title>(.*?)</title>", (self.root / path).read_text()).group(1) for path in figures]
        titles[1] = '</script><img src=x onerror=boom()> "quoted" & more'
        self.assertEqual([image["alt"] for image in shown], titles)
        self.assertEqual([image["width"] for image in shown], [760, 900, 760], "each is drawn")
        self.assertEqual(self.see("typeof boom"), "undefined")
        self.assertEqual(self.asked_for(), [page])
        self.assertGreater(
            self.see("document.getElementById('figures').getBoundingClientRect().top"),
            self.see("document.getElementById('curves').getBoundingClientRect().bottom") - 1,
        )
        self.assertEqual(self.see("[...document.querySelectorAll('#figures img')].map(({ offsetLeft }) => offsetLeft)"),
                         [28, 650, 28])
        self.click("#theme")
        self.browser.resize(380, 800)
        self.assertLessEqual(self.see("document.documentElement.scrollWidth"), 380)
        sizes = self.see("[...document.querySelectorAll('#figures img')].map(({ width, height }) => [width, height])")
        self.assertEqual(sizes[1], [352, 117], "as wide as the window, and not squeezed")
        self.browser.resize(720, 1000)
        self.browser.call("Emulation.setEmulatedMedia", media="print")
        self.assertEqual(self.see("document.querySelector('#figures img').width"), 720)

    def test_without_figures_there_is_no_such_section(self):
        self.assertEqual(self.see("document.getElementById('figures').offsetHeight"), 0)

    # --- the page ---

    def test_light_dark_and_the_address(self):
        ground = "getComputedStyle(document.body).backgroundColor"
        self.assertEqual(self.see(ground), "rgb(255, 255, 255)")
        self.click("#theme")
        dark = self.see(ground)
        self.assertLess(max(map(int, re.findall(r"\d+", dark))), 60)
        self.assertGreater(self.pixels(0), 60, "in the colours of the dark page")
        strokes = self.see("""[...document.querySelectorAll("#results thead path:first-child")]
            .map((path) => [path.getAttribute("stroke"), path.getAttribute("stroke-dasharray")])""")
        self.assertEqual(strokes, self.see("runs.map(({ look }) => [look.dark_colour, look.dash])"))
        self.choose("measure", "steps")
        self.click("#legend button", 3)
        address = self.see("location.href")
        self.browser.open("about:blank")
        self.browser.open(address)
        self.assertEqual(self.see(ground), dark)
        self.assertEqual(self.see("[view.measure, [...view.hidden]]"), ["steps", [3]])
        self.browser.open("about:blank")
        self.browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        self.browser.open(self.url)
        self.assertEqual(self.see(ground), dark, "the system's preference")

    def test_narrow_windows(self):
        self.browser.resize(380, 800)
        self.assertLessEqual(self.see("document.documentElement.scrollWidth"), 380)
        self.assertGreater(self.pixels(0), 60)

    def test_print(self):
        self.click("#theme")
        document = self.root / "page.pdf"
        self.see("""globalThis.printed = [];
            addEventListener("beforeprint", () => printed.push(
                getComputedStyle(document.body).backgroundColor, panels[0].width, panels[0].base.width))""")
        self.browser.pdf(document)
        self.assertTrue(document.read_bytes().startswith(b"%PDF"))
        self.assertEqual(self.see("printed"), ["rgb(255, 255, 255)", 720, 2160], "light, and sharp on paper")
        self.assertFalse(self.see("view.paper"))
        self.browser.call("Emulation.setEmulatedMedia", media="print")
        hidden = self.see(
            '["#controls", "#theme", ".help"].map((name) => getComputedStyle(document.querySelector(name)).display)'
        )
        self.assertEqual(hidden, ["none"] * 3)

    def test_accessible_names(self):
        unnamed = self.see(
            """[...document.querySelectorAll("button, input, canvas[role=img], [role=radiogroup]")].filter((node) =>
            !(node.getAttribute("aria-label") || node.textContent || node.labels?.[0].textContent)).length"""
        )
        self.assertEqual(unnamed, 0)
        self.assertIn("base ends at", self.see("panels[0].base.getAttribute('aria-label')"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PageTest.keen = str(pathlib.Path(sys.argv.pop(1)).resolve())
    if find_browser() is None:
        print("There is no Chromium: skipped")
        sys.exit(77)
    unittest.main()
