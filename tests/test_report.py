"""The report, with canned results in place of training, simulation, synthesis and their tools."""

import errno
import json
import math
import os
import re
import shlex
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from narrowgauge import catalog, report
from narrowgauge.cli.parser import parser
from narrowgauge.cli.settings import settings
from narrowgauge.golden.errors import MissingExtra
from narrowgauge.golden.network import Epoch, Result
from narrowgauge.report import work, writing

FILES = {"report.html", "report.md", "report.json", "learning.svg", "cost.svg"}
# Final test accuracies by recipe and seed; the median is not the mean, and not the second seed's.
TEST = {"fp32": (0.91, 0.97, 0.96), "bfp": (0.955, 0.5, 0.9375), "fp16": (0.9, 0.8, 0.95),
        "lns-madam": (0.85, 0.925, 0.875)}
LUTS = {"bfp-converter": 2500, "bfp-fmac": 1210, "bfp-fmac accumulator=bf16": 880, "bfp-fmac chunks=parallel": 1600}
LUTS |= {case.label: 300 + 7 * index for index, case in enumerate(report.CASES) if case.label not in LUTS}


def canned_training(recipe, dataset, *, seed, epochs, progress, **_):
    history = tuple(Epoch(k, 1 / k + seed / 64, k / (k + 1), TEST[recipe.name][seed - 1] - (3 - k) / 32)
                    for k in (1, 2, 3))
    progress(3, 3, history[-1])
    return Result(recipe, seed, history, (), (), (), f"{seed:x}" * 64, False, 0, 1)


def canned_synthesis(text, top, ports, target, *, seeds, device, progress):
    progress("placing")
    lut = LUTS[next(case.label for case in report.CASES if case.module == top)]
    return {"target": target, "device": device, "lut": lut, "ff": lut + 77, "dsp": 0, "bram": 0, "fits": True,
            "fmax_mhz": {"min": 100.25, "median": 125.5, "max": 131.75, "seeds": {"1": 100.25}}, "note": None,
            "tools": {"yosys": "0"}}


@contextmanager
def canned():
    """Replace all that takes time; yield a dict in which a test may put mismatches by module name."""
    found = {}

    def canned_run(component, name, vectors, *, seed, text):
        count = found.get(name, 0)
        return SimpleNamespace(vectors=2345, mismatches=count, cycles=6789, latency=11,
                               report=[f"output {k}: expected <{k}>" for k in range(count)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "prepare", lambda: [])
        patch.setattr(work.network, "train", canned_training)
        patch.setattr(catalog.Unit, "vectors", lambda *_: SimpleNamespace(outputs=[0] * 1234))
        patch.setattr(report.Case, "verilog", "module")
        patch.setattr(work.runner, "run", canned_run)
        patch.setattr(work.runner, "simulator", lambda: {"verilator": "0"})
        patch.setattr(work.flow, "synthesise", canned_synthesis)
        yield found


@pytest.fixture
def mismatches():
    with canned() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the folder of one report, which is only looked at."""
    folder = tmp_path_factory.mktemp("report") / "made" / "here"
    with canned():
        report.write(folder, seeds=3, say=lambda text: None)
    return folder


class Checker(HTMLParser):
    """Collects what is wrong with a page's tags, and where it would fetch something from."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.seen, self.links, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes
                       if name in ("src", "href", "xlink:href") and not value.startswith("#")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def page(folder):
    checker = Checker()
    checker.feed((folder / "report.html").read_text())
    checker.close()
    return checker


def leaves(value):
    """Return all that the objects and lists of a JSON value hold in the end."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]


def tables(folder):
    """Return the rows of each table of the Markdown: lists of cells, heads not among them."""
    found, rows = [], None
    for line in (folder / "report.md").read_text().splitlines():
        if not line.startswith("|"):
            rows = None
        elif rows is None:
            found.append(rows := [])
        elif not line.startswith("| ---"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_all_files_are_written_and_nothing_else(written):
    assert {path.name for path in written.iterdir()} == FILES


def test_page_closes_all_its_tags(written):
    checker = page(written)
    assert not checker.wrong and not checker.open
    assert checker.seen.count("svg") == 2 and checker.seen.count("table") == len(tables(written))


def test_page_needs_no_network_and_repeats_no_id(written):
    checker = page(written)
    assert not checker.links and len(checker.ids) == len(set(checker.ids))
    assert not re.search(r"url\((?!#)|@import", (written / "report.html").read_text())


def test_tables_name_every_unit(written):
    firsts = [[row[0] for row in rows] for rows in tables(written)]
    units = [f"`{case.label}`" for case in report.CASES]
    assert firsts.count(units) == 3  # simulation, cost, parameters
    assert [f"`{recipe}`" for recipe in report.RECIPES] in firsts


def test_json_holds_every_number_shown(written):
    known = [leaf for leaf in leaves(json.loads((written / "report.json").read_text())) if type(leaf) in (int, float)]
    cells = [cell for rows in tables(written) for row in rows for cell in row if re.fullmatch(r"[\d,]+(\.\d+)?", cell)]
    cells += re.findall(r"(?<![\w.])[\d,]*\d\.\d+", (written / "report.md").read_text().split("## Training")[0])
    cells += ["1,437", "360", "2,345"]
    assert len(cells) > 60
    for cell in cells:
        digits = len(cell.partition(".")[2])
        assert any(abs(float(cell.replace(",", "")) - each) <= 0.5000001 * 10**-digits for each in known), cell


def test_medians_and_spreads_are_those_of_the_seeds(written):
    training = json.loads((written / "report.json").read_text())["training"]
    assert [entry["accuracy"]["test"] for entry in training] == [
        {"min": 0.91, "median": 0.96, "max": 0.97}, {"min": 0.5, "median": 0.9375, "max": 0.955},
        {"min": 0.8, "median": 0.9, "max": 0.95}, {"min": 0.85, "median": 0.875, "max": 0.925}]
    assert [row["loss"] for row in training[0]["median"]] == [1 + 2 / 64, 1 / 2 + 2 / 64, 1 / 3 + 2 / 64]
    rows = next(rows for rows in tables(written) if rows[0][0] == "`fp32`" and len(rows) == 4)
    assert rows[1] == ["`bfp`", "0.7500", "0.5000", "0.9375", "0.9550"]


def test_costs_are_per_multiply_accumulate(written):
    entries = {entry["label"]: entry for entry in json.loads((written / "report.json").read_text())["synthesis"]}
    # 16 lanes of 2x2 chunks, one pair a cycle or all four.
    assert entries["bfp-fmac"]["cost"]["luts_per_mac"] == 1210 / 4
    assert entries["bfp-fmac chunks=parallel"]["chunk_cost"] == {
        "luts_per_mac": 1600 / 64, "million_macs_per_second_per_1000_luts": 64 * 125.5 / 1.6}
    assert entries["bfp-converter"]["cost"] is None


def test_every_result_has_a_command_that_the_command_line_takes(written):
    results = json.loads((written / "report.json").read_text())
    entries = [run for entry in results["training"] for run in entry["runs"]]
    entries += results["simulation"] + results["synthesis"]
    for entry in entries:
        program, *arguments = shlex.split(entry["command"])
        options = parser().parse_args(arguments)
        assert program == "narrowgauge" and options.verb in ("train", "simulate", "synth")
        assert entry["command"] in (written / "report.md").read_text()
        if "unit" in entry:
            unit = catalog.find(options.unit)
            assert unit.configure(settings(options.set)).to_json() == entry["parameters"]


def test_same_results_give_the_same_bytes_but_for_the_time(written, mismatches, tmp_path):
    report.write(tmp_path / "again", seeds=3, say=lambda text: None)
    for name in ("learning.svg", "cost.svg"):
        assert (written / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (written, tmp_path / "again"))
    assert first.pop("made").keys() == second.pop("made").keys() == {"date", "machine", "seconds"}
    assert first == second


def test_each_step_is_told_with_its_time(mismatches, tmp_path):
    lines = []
    report.write(tmp_path, seeds=3, say=lines.append)
    assert len(lines) == len(report.RECIPES) + 2 * len(report.CASES) + 1
    assert all(re.match(r" *\d+\.\d s  (trained|simulated|synthesised|wrote) ", line) for line in lines)


def test_a_quick_report_has_fewer_units(mismatches, tmp_path):
    report.write(tmp_path, seeds=1, say=lambda text: None, quick=True)
    for part in ("simulation", "synthesis"):
        assert [entry["label"] for entry in json.loads((tmp_path / "report.json").read_text())[part]] == list(
            report.QUICK)


def test_mismatches_are_written_and_raised(mismatches, tmp_path):
    mismatches["bfp_fmac_g16_m4_e8_bf16"] = 7
    vectors = 2345 * len(report.CASES)
    with pytest.raises(RuntimeError, match=rf"DIFFERS .* 7 mismatches in {vectors:,} vectors \(.*=bf16: 7\)"):
        report.write(tmp_path, seeds=3, say=lambda text: None)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    text = (tmp_path / "report.html").read_text()
    assert text.index("DIFFERS") < text.index("<h2>")
    assert "expected &lt;4&gt;" in text and "expected &lt;5&gt;" not in text
    assert not page(tmp_path).wrong
    assert "**The generated Verilog DIFFERS" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["mismatches"] == 7


def test_unit_that_was_not_placed_is_shown_with_its_note(mismatches, monkeypatch, tmp_path):
    monkeypatch.setattr(work.flow, "synthesise", lambda *arguments, **others: {
        **canned_synthesis(*arguments, **others), "fmax_mhz": None, "fits": False, "note": "does not fit"})
    report.write(tmp_path, seeds=3, say=lambda text: None)
    row = next(row for rows in tables(tmp_path) for row in rows if row[0] == "`bfp-fmac`" and row[1] == "1,210")
    assert row[4:7] == ["–"] * 3 and row[8] == "302.5"
    assert "`bfp-fmac`: does not fit." in (tmp_path / "report.md").read_text()


def test_missing_package_is_told_before_any_work(mismatches, monkeypatch, tmp_path):
    def version(package):
        if package == "matplotlib":
            raise writing.metadata.PackageNotFoundError(package)
        return "0"

    monkeypatch.setattr(writing.metadata, "version", version)
    monkeypatch.setattr(work, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(MissingExtra, match=r"^report needs matplotlib: pip install 'narrowgauge\[demo\]'$"):
        report.write(tmp_path / "made", seeds=3, say=lambda text: None)
    assert not (tmp_path / "made").exists()


def test_failure_writes_nothing(mismatches, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("yosys failed")

    monkeypatch.setattr(work.flow, "synthesise", fail)
    with pytest.raises(RuntimeError, match="yosys failed"):
        report.write(tmp_path, seeds=3, say=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_failure_while_writing_leaves_old_files_whole(mismatches, monkeypatch, tmp_path):
    (tmp_path / "learning.svg").write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        report.write(tmp_path, seeds=3, say=lambda text: None)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("learning.svg", "old")]


def test_a_run_that_diverged_is_told_and_the_report_is_still_json(mismatches, monkeypatch, tmp_path):
    def diverging(recipe, dataset, *, seed, **others):
        result = canned_training(recipe, dataset, seed=seed, **others)
        if (recipe.name, seed) != ("fp16", 2):
            return result
        history = (result.history[0], *(replace(row, loss=math.nan) for row in result.history[1:]))
        return replace(result, history=history, diverged={"epoch": 2, "step": 61})

    def refuse(constant):
        raise AssertionError(f"{constant} in JSON")

    monkeypatch.setattr(work.network, "train", diverging)
    report.write(tmp_path, seeds=3, say=lambda text: None)
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    (entry,) = (entry for entry in data["training"] if entry["recipe"] == "fp16")
    assert [run["diverged"] for run in entry["runs"]] == [None, {"epoch": 2, "step": 61}, None]
    # A NaN has no place in an order: a median of three with one is none.
    assert [row["loss"] for row in entry["median"]] == [1 + 2 / 64, None, None]
    assert "> **Training diverged: fp16, seed 2, in epoch 2, step 61.**" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("output, message", [
    ("file/folder", "output is 'file/folder'; allowed: a folder that can be made (Not a directory)"),
    ("occupied", "output is 'occupied/report.md'; allowed: a file that can be written (this is a folder)"),
    ("", "output is ''; allowed: a folder"),
])
def test_output_that_cannot_be_written_is_told_before_any_work(output, message, mismatches, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "occupied" / "report.md").mkdir(parents=True)
    monkeypatch.setattr(work, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        report.write(output, seeds=3, say=lambda text: None)
