"""Exploring: spaces, commands that are kept, fronts, the page; and what becomes of points that fail and of stops."""

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from narrowgauge import cli
from narrowgauge.explore import SPACES, Space, commands, engine, explore, rows
from narrowgauge.explore.page import label_of, page, varying_of

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
ROOT = Path(__file__).parents[1]
QUICK = {"data": "digits", "examples": "64,32", "epochs": 1, "hidden": 8}


def test_a_grid_has_every_combination_once_and_in_order():
    space = Space.of({"settings": {"recipe": "bfp", **QUICK},
                      "grid": [{"set.mantissa": [2, 3], "set": {"group": [8, 16]}, "work": "bf16"},
                               {"set.mantissa": [2, 4], "set.group": 8, "work": "bf16"}]})
    assert [(point["set"]["mantissa"], point["set"]["group"]) for point in space.points] == [
        (2, 8), (2, 16), (3, 8), (3, 16), (4, 8)]
    assert all(point["work"] == "bf16" and point["recipe"] == "bfp" and point["epochs"] == 1 for point in space.points)
    # Settings of a grid stand before those of all points.
    assert Space.of({"settings": {"recipe": "bfp"}, "grid": [{"recipe": ["mx", "fp32"]}]}).points == [
        {"recipe": "mx"}, {"recipe": "fp32"}]


def test_draws_are_repeated_and_from_their_alternatives():
    described = {"draw": [{"count": 40, "seed": 3, "recipe": "bfp", "set.mantissa": [2, 3, 4, 5], "lr": [0.1, 0.05]}]}
    once, again = Space.of(described).points, Space.of(described).points
    assert once == again and 6 <= len(once) <= 8  # each point once
    assert {point["set"]["mantissa"] for point in once} == {2, 3, 4, 5}
    assert Space.of({**described, "budget": {"points": 3}}).points == once[:3]


@pytest.mark.parametrize(("described", "message"), [
    ({"grids": []}, "key of space is 'grids'; allowed: about, seeds, targets, "),
    ({"settings": {"recipes": "bfp"}}, "setting is 'recipes'; allowed: recipe, system, work, "),
    ({"grid": [{"recipe": []}]}, "recipe is []; allowed: a value, or a list of them"),
    ({"seeds": [1, 1]}, "seeds is [1, 1]; allowed: one seed or more, each once"),
    ({"seeds": []}, "seeds is []; allowed: one seed or more, each once"),
    ({"draw": [{"recipe": "bfp"}]}, "draw.count is None; allowed: "),
    ({"budget": {"minutes": 0}}, "budget.minutes is 0; allowed: a number above 0"),
    ({"budget": {"hours": 1}}, "budget is {'hours': 1}; allowed: minutes, points"),
])
def test_a_space_that_is_none_is_refused_in_one_line(described, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        Space.of(described)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ValueError, match=r"bad.toml'; allowed: a file in TOML \("):
        Space.read(tmp_path / "bad.toml")
    with pytest.raises(ValueError, match=f"^SPACE is 'none'; allowed: a file .*, or {', '.join(SPACES)}$"):
        Space.read("none")


def test_the_points_of_shipped_spaces_are_commands_that_are_taken():
    assert list(SPACES) == ["bfp", "formats", "precision-policies", "softmax-bits", "softmax-guideline"]
    for name in SPACES:
        space = Space.read(name)
        assert space.about and len(space.points) >= 10
        # The data set `letter` comes from a package of its own.
        for point in [each for each in space.points if each.get("data") != "letter"][::5]:
            short = point | {"examples": "64,32"}
            assert cli.prepare(commands.train_words(short, 1))
            if space.plan:
                assert commands.plan_words(point, 1)[:1] == ["plan"]


def test_a_command_is_what_the_point_says():
    point = {"recipe": "bfp", "set": {"mantissa": 3, "weights_precision": {"policy": "constant", "width": 3}},
             "softmax_bits": 5, "batch_norm": True, "core": {"rows": 2}, "lr": 0.1}
    assert commands.shown(commands.train_words(point, 7)) == (
        "narrowgauge train --recipe bfp --softmax-bits 5 --batch-norm --lr 0.1 --set mantissa=3 "
        """--set 'weights_precision={"policy": "constant", "width": 3}' --seed 7""")
    assert commands.plan_words(point, 7)[-4:] == ["--core", "rows=2", "--seed", "7"]


def row(accuracy, cost, case="a", **others):
    empty = dict.fromkeys(rows.COSTS)
    found = None if accuracy is None else {"min": accuracy, "median": accuracy, "max": accuracy}
    return {"case": case, "accuracy": found, **empty, "lut_per_mac": cost, **others}


def test_a_front_holds_what_no_other_row_of_the_case_beats():
    table = [row(0.9, 10), row(0.95, 20), row(0.95, 21), row(0.9, 10), row(0.8, 15), row(None, 1), row(0.99, None),
             row(0.5, 30, "b"), row(0.97, 5, "c")]
    rows.mark_fronts(table)
    assert [bool(each["pareto"]) for each in table] == [True, True, False, True, False, False, False, True, True]
    assert table[0]["pareto"] == ["lut_per_mac"]


@pytest.mark.parametrize(("described", "unit", "bits"), [
    ({"name": "plain", "work": "bf16", "chunk": None}, ("float-mac", {"format": "bf16", "accumulator": "bf16"}), 16),
    ({"name": "bfp", "mantissa": 3, "group": 8}, ("bfp-fmac", {"mantissa": 3, "group": 8}), 8 / 8 + 4),
    ({"name": "lns", "sum_bits": 24, "lsb": 16}, ("lns-dot", {"accumulator": 24, "lsb": 16}), 8),
    ({"name": "int8"}, None, 8),
])
def test_a_number_system_has_its_unit_and_its_bits(described, unit, bits):
    found = rows.unit_of(described)
    if unit is None:
        assert found is None
    else:
        assert found[0] == unit[0] and found[1].items() >= unit[1].items()
        from narrowgauge import catalog
        assert catalog.find(found[0]).configure(found[1])
    assert rows.bits_of(described) == bits


def told(accuracy, seconds=0.0):
    return {"result": {"accuracy": {"train": 1.0, "test": accuracy}, "digest": f"d{accuracy}", "diverged": None,
                       "system": {"name": "plain", "work": "fp32", "chunk": None}},
            "reason": None, "final": True, "seconds": seconds}


@pytest.fixture
def fake(monkeypatch):
    """Have commands answer at once; return those that were run."""
    ran = []

    def run(words):
        ran.append(words)
        if words[0] == "plan":
            return {"result": {"cycles_per_step": 100.0, "utilisation": 0.5, "fits": True, "misfit": None,
                               "macs_per_step": 1000}, "reason": None, "final": True, "seconds": 0.0}
        if words[0] == "synth":
            return {"result": {"macs_per_cycle": 2, "lut": 300, "fmax_mhz": {"median": 100.0}}, "reason": None,
                    "final": True, "seconds": 0.0}
        seed = int(words[-1])
        if "--recipe" in words and words[words.index("--recipe") + 1] == "mx":
            return {"result": None, "reason": "narrowgauge train: no such luck", "final": seed != 2, "seconds": 0.0}
        return told(0.5 + seed / 10)

    monkeypatch.setattr(commands, "run", run)
    return ran


SPACE = {"seeds": [1, 2, 3], "targets": ["ecp5"], "grid": [{"recipe": ["fp32", "mx"]}]}


def test_rows_gather_what_commands_found_and_failures_say_why(fake, tmp_path):
    result = explore(SPACE, tmp_path, workers=2)
    good, bad = result["rows"]
    assert good["accuracy"] == {"min": 0.6, "median": 0.7, "max": 0.8} and good["digest"] == "d0.6"
    assert good["seeds"] == [1, 2, 3] and good["cycles_per_step"] == 100 and good["utilisation"] == 0.5
    assert good["lut_per_mac"] == 150 and good["mmacs_per_s_per_klut"] == pytest.approx(2 * 100 * 1000 / 300)
    assert good["pareto"] == ["lut_per_mac", "cycles_per_step", "bits_per_operand"] and not good["failures"]
    assert good["command"] == "narrowgauge train --recipe fp32 --seed 1" and len(good["commands"]) == 5
    assert bad["accuracy"] is None and bad["failures"] == ["narrowgauge train: no such luck"] and not bad["pareto"]
    assert json.loads((tmp_path / "explore.json").read_text())["rows"] == json.loads(json.dumps(result["rows"]))
    assert "no such luck" in (tmp_path / "report.html").read_text()


def test_a_second_call_runs_what_is_missing_alone(fake, tmp_path):
    first = explore(SPACE, tmp_path)
    assert len(fake) == 3 + 3 + 2 + 1
    fake.clear()
    # What may end otherwise is run again: a training of mx, of seed 2.
    assert explore(SPACE, tmp_path) == first and [words[-1] for words in fake] == ["2"]
    fake.clear()
    kept = sorted((tmp_path / "results").glob("*.json"))
    kept[0].write_text(kept[0].read_text()[:-20])  # cut by a full disk
    kept[1].unlink()
    explore(SPACE, tmp_path)
    assert len(fake) == 3


def test_a_stop_at_any_command_loses_nothing(fake, tmp_path, monkeypatch):
    whole = explore(SPACE, tmp_path / "whole")
    run, counts = commands.run, []
    for stop in (1, 3, 6):
        fake.clear()

        def stops(words, stop=stop):
            if len(fake) == stop:
                raise KeyboardInterrupt
            return run(words)

        folder = tmp_path / str(stop)
        monkeypatch.setattr(commands, "run", stops)
        with pytest.raises(KeyboardInterrupt):
            explore(SPACE, folder, workers=1)
        assert not (folder / "report.html").exists()
        monkeypatch.setattr(commands, "run", run)
        fake.clear()
        assert explore(SPACE, folder, workers=1)["rows"] == whole["rows"]
        counts.append(len(fake))
    assert counts[0] > counts[1] > counts[2]


def test_a_time_that_is_up_leaves_rows_that_say_so(fake, tmp_path):
    said = []
    result = explore({**SPACE, "budget": {"minutes": 1e-9}}, tmp_path, progress=said.append)
    assert not result["complete"] and not fake
    assert all(each["failures"] == ["not run: the time was up"] for each in result["rows"])
    assert "The time was up" in (tmp_path / "report.html").read_text()


def test_progress_has_an_estimate(monkeypatch):
    said = []
    clock = engine._Clock(said.append, 2)
    clock.tell([["train"]] * 3)
    clock.add(["train"], told(0.5, 30.0))
    clock.add(["synth"], {**told(0.5, 600.0), "result": None})
    clock.tell([["train"]] * 4 + [["synth"]])
    assert said == ["0 of 3 commands, 0 of them kept",
                    "2 of 7 commands, 0 of them kept, 1 failed, about 6 min left"]


def test_the_page_sorts_plots_and_repeats(fake, tmp_path):
    explore(SPACE, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert text.count("<svg ") == 3 and "addEventListener" in text
    assert "narrowgauge train --recipe mx --seed 1" in text
    assert not re.search(r'(src|href)="http', text)  # nothing is fetched
    result = json.loads((tmp_path / "explore.json").read_text())
    assert page(result) == text
    assert [label_of(each, varying_of(result["rows"])) for each in result["rows"]] == ["fp32", "mx"]
    hostile = {**result, "about": "<script>alert(1)</script>"}
    assert "<script>alert" not in page(hostile)


def test_a_real_command_is_run_and_a_wrong_one_says_why():
    words = commands.train_words({"recipe": "fp32", **QUICK}, 1)
    outcome = commands.run(words)
    assert outcome["reason"] is None and 0 <= outcome["result"]["accuracy"]["test"] <= 1 and outcome["seconds"] > 0
    stream = io.StringIO()
    with redirect_stdout(stream):
        assert cli.main([*words, "--json", "-"]) == 0
    assert json.loads(stream.getvalue())["digest"] == outcome["result"]["digest"]
    wrong = commands.run(commands.train_words({"recipe": "none", **QUICK}, 1))
    assert wrong["result"] is None and wrong["final"] and "recipe is 'none'; allowed: " in wrong["reason"]


def test_a_command_that_is_killed_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/sleep")
    outcome = None

    class Killed(subprocess.Popen):
        def __init__(self, command, **others):
            super().__init__(["/bin/sleep", "100"], **others)
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(commands.subprocess, "Popen", Killed)
    outcome = commands.run(["train"])
    assert outcome["reason"] == "it ended with status -9, without a word" and not outcome["final"]
    store = commands.Store(tmp_path)
    store.put(["train"], outcome)
    assert store.get(["train"]) is None and not list(tmp_path.iterdir())


def test_results_depend_on_the_files_that_are_named(tmp_path):
    model, store = tmp_path / "net.toml", commands.Store(tmp_path / "results")
    model.write_text("a")
    words = ["train", "--model", str(model)]
    store.put(words, told(0.5))
    assert store.get(words)["result"]["accuracy"]["test"] == 0.5
    model.write_text("b")
    assert store.get(words) is None


def test_the_command_line_explores_and_resumes(tmp_path, capsys):
    file = tmp_path / "two.toml"
    file.write_text('seeds = [1]\n[settings]\ndata = "digits"\nexamples = "64,32"\nepochs = 1\nhidden = 8\n'
                    '[[grid]]\nrecipe = ["fp32", "none"]\n')
    words = ["explore", str(file), "--output", str(tmp_path / "out"), "--workers", "2"]
    assert cli.main([*words, "--json", str(tmp_path / "found.json"), "--verbose"]) == 0
    out, err = capsys.readouterr()
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["rows"]) == 2 and found["tools"]["narrowgauge"] and found["seed"] == [1]
    assert "recipe is 'none'; allowed: " in out and "2 points, 2 with failures; " in out
    assert "narrowgauge plan: softmax is None; allowed: a head" in found["rows"][0]["failures"][0]  # no core runs fp32
    assert found["rows"][0]["accuracy"] and not found["rows"][1]["accuracy"]
    assert "of 4 commands" in err
    assert cli.main([*words, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == found["rows"]
    for wrong, message in (
            (["--scheduler", "tcp://localhost:1", "--workers", "1"], "--workers is 1; allowed: nothing beside "),
            (["--output", "/proc/none"], "--output is '/proc/none'; allowed: ")):
        assert cli.main([*words[:2], *wrong]) == 2
        assert capsys.readouterr().err.startswith(f"narrowgauge explore: {message}")


def test_a_cluster_gives_the_same_rows(tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    space = {"seeds": [1], "plan": False, "settings": QUICK, "grid": [{"recipe": ["fp32", "none"]}]}
    here = explore(space, tmp_path / "here", workers=1)
    settings = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster:
        there = explore(space, tmp_path / "there", scheduler=cluster.scheduler_address)
    assert there["rows"] == here["rows"] and there["complete"]


def test_the_guideline_of_a_sweep_is_the_least_that_holds_from_there_on(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    guideline = importlib.import_module("softmax_guideline")

    def rows_of(data, accuracies):
        base = {"settings": {"data": data}, "accuracy": {"median": 0.9}}
        return [base, *({"settings": {"data": data, "softmax_rounding": "nearest", "softmax_bits": bits},
                         "accuracy": accuracy and {"median": accuracy}} for bits, accuracy in accuracies.items())]

    table = rows_of("clusters-10", {4: 0.9, 5: 0.7, 6: 0.896, 7: 0.904})
    table += rows_of("letter", {6: None, 7: 0.899, 8: 0.9})
    found = guideline.least_bits(table)
    assert found == {("clusters-10", "nearest"): 6, ("letter", "nearest"): 7}
    assert "nearest: ceil(log2 classes) + 2 bits hold for all; so do 7" in guideline.told(found)
    assert "nearest: none holds for all" in guideline.told(guideline.least_bits(rows_of("letter", {6: 0.9, 7: 0.5})))


def test_a_scheduler_that_is_not_there_is_told_in_a_line(tmp_path):
    pytest.importorskip("distributed", reason="distributed is not installed")
    with pytest.raises(ValueError, match="^--scheduler is 'nonsense://x'; allowed: the address of a Dask scheduler "):
        explore({"settings": QUICK}, tmp_path, scheduler="nonsense://x")


def test_the_example_sweeps_a_format_in_twenty_lines(fake, tmp_path):
    path = ROOT / "examples" / "sweep_format.py"
    text = path.read_text()
    assert len(text.splitlines()) <= 20
    stream = io.StringIO()
    with redirect_stdout(stream), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), str(tmp_path)])
        # Fake commands tell no gates, and seeds are two.
        exec(compile(text.replace('"gates_per_mac"', '"lut_per_mac"'), str(path), "exec"), {"__name__": "sweep"})
    assert [line.split(":")[0] for line in stream.getvalue().splitlines()] == [f"{n} bits" for n in (2, 3, 4, 8)]
