# amaranth: UnusedElaboratable=no
"""Every command line of the help texts, the README and the pages of docs/ is one that works."""

import contextlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from cores import alone
from narrowgauge import cli
from narrowgauge.cli.parser import EPILOG, EXAMPLES, parser
from narrowgauge.cli.runs import core_of, run_of
from narrowgauge.golden import systems
from narrowgauge.golden.errors import MissingExtra
from narrowgauge.golden.host import Configuration
from narrowgauge.host import BoardFile
from narrowgauge.synth.boards import BOARDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SHORT = ["--epochs", "1", "--examples", "64,32"]  # the last of an option that is given twice counts


def blocks(text):
    """Return the command lines that stand alone, without their ``narrowgauge``; a backslash continues a line."""
    return re.findall(r"^ {2,4}narrowgauge (.*)$", re.sub(r"\\\n *", "", text), re.M)


def spans(text):
    """Return those that stand in a sentence, but for a verb alone and for one with places to fill in."""
    found = [" ".join(span.split()) for span in re.findall(r"`narrowgauge\s([^`]*)`", text)]
    return [span for span in found if len(span.split()) > 1 and not re.search(r"\.\.\.|UNIT", span)]


COMMANDS = dict.fromkeys([
    *(command for commands in EXAMPLES.values() for command in commands),
    *(command for page in PAGES for command in [*blocks(page.read_text()), *spans(page.read_text())])])


def test_the_commands_are_found():
    known = ["list", "generate array --set system=lns -o array.v", "report", "train --recipe bfp --seed 1"]
    assert COMMANDS.keys() >= set(known)
    verbs = [command.split()[0] for command in COMMANDS]
    assert all(verbs.count(verb) >= least for verb, least in
               {"generate": 8, "simulate": 10, "train": 12, "synth": 6}.items()), verbs


@pytest.fixture
def one_core(monkeypatch):
    """Keep the core that commands build, and let one command at a time build it."""
    monkeypatch.setenv("NARROWGAUGE_CACHE", str(ROOT / "build"))
    with alone():
        yield


def is_long(command):
    """Whether a command builds a core, which takes half a minute."""
    return "--rtl" in command or "--ports device" in command


@pytest.mark.parametrize("command", [
    pytest.param(command, marks=[pytest.mark.sweep] if is_long(command) else []) for command in COMMANDS])
def test_command(command, tmp_path, monkeypatch, capsys, request):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    # What --system brings is taken away again.
    monkeypatch.setattr(systems, "SYSTEMS", dict(systems.SYSTEMS))
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = shlex.split(command)
    if words[0] == "train":
        words += SHORT
    if "--rtl" in words:
        request.getfixturevalue("one_core")
    for option in {"--resume", "--start"}.intersection(words):
        # The file is that of an earlier command.
        at = words.index(option)
        cli.prepare(["train", *words[1:at], *words[at + 2:], "--save", words[at + 1], *SHORT])()
    for word in words:
        if word.endswith("board.json"):  # of a board that was built before
            own = ["--recipe", "bfp", "--work", "bf16", "--update", "stochastic"]
            options = parser().parse_args(["build", "--board", "simulated", *own])
            parameters, *_ = core_of(options, *run_of(options), BOARDS["simulated"].core)
            Path(word).parent.mkdir(parents=True)
            BoardFile("simulated", Configuration(parameters), 50.0, 50).write(word)
    try:
        work = cli.prepare(words)
    except MissingExtra as error:
        pytest.skip(str(error))
    except ValueError as error:
        if not re.search(r"^data '.*' (is not in /usr|needs)", str(error)):
            raise
        work = cli.prepare([*words, "--data", "digits"])
    # Simulators, synthesis and arrays take minutes: they are checked as far as they are before their work.
    if "--host" in words:  # no board is there
        return
    if words[0] in ("list", "train", "vectors", "package", "run") or (words[0] == "generate" and words[1] != "array"):
        assert not work()
        options = parser().parse_args(words)
        for name, content in (("output", "\nend"), ("json", '"tools"')):
            path = getattr(options, name, None)
            if words[0] in ("vectors", "package") and name == "output":
                # A folder: the file that tells of the others.
                (path,), content = [*Path(path).glob("*.json"), *Path(path).glob("*.core")], "narrowgauge"
            assert path is None or content in Path(path).read_text()


def test_help_names_no_form_of_waves_that_is_not_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("waves.fst", "waves", "waves.vcd.gz"):
        with pytest.raises(ValueError, match=f"^--waves is '{name}'; allowed: a name that ends in .vcd, "):
            cli.prepare(["simulate", "float-adder", "--waves", name])
    cli.prepare(["simulate", "float-adder", "--waves", "waves.VCD"])
    cli.prepare(["simulate", "float-adder", "--waves", "/dev/null"])


def test_examples_of_the_train_options_are_taken(capsys, tmp_path, monkeypatch):
    """Each NAME=VALUE of ``train --help`` is one of the recipe that it is told for."""
    text = next(action.help for action in parser()._subparsers._group_actions[0].choices["train"]._actions
                if action.dest == "set")
    for part in text.split("; "):
        recipe = (re.match(r"of ([\w-]+)[:,]", part) or [None, "bfp"])[1]
        settings = re.findall(r"(\w+=(?:'[^']*'|\[[^]]*\]|[\w.-]+))", part)
        assert settings
        for at in range(len(settings)):
            taken = set()
            # Some need the one before or after them.
            for some in (settings[at:at + 1], settings[at:at + 2], settings[max(at - 1, 0):at + 1]):
                words = [word for setting in some for word in ("--set", *shlex.split(setting))]
                with contextlib.suppress(ValueError):
                    taken.add(bool(cli.prepare(["train", "--recipe", recipe, *words, *SHORT])))
            assert taken, settings[at]


def test_the_help_of_every_verb_shows_two_examples_of_it(capsys):
    verbs = parser()._subparsers._group_actions[0].choices
    assert verbs.keys() == EXAMPLES.keys()
    for verb in verbs:
        assert cli.main([verb, "--help"]) == 0
        found = blocks(capsys.readouterr().out.partition("examples:\n")[2])
        assert len(found) == 2 and all(command.split()[0] == verb for command in found)


def test_nothing_prints_help(capsys):
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("usage: narrowgauge ") and EPILOG in out and err == ""


def train(capsys, *arguments):
    """Return status, result and messages of a short run on digits."""
    status = cli.main(["train", *SHORT, *arguments, "--json", "-"])
    out, err = capsys.readouterr()

    def refuse(constant):
        raise AssertionError(f"{constant} in JSON")

    return status, json.loads(out, parse_constant=refuse) if out else None, err


@pytest.mark.parametrize(("arguments", "step", "invalid"), [
    # FP16 ends at 65,504, so a first step of 1e6 is infinite; one of 1,000 makes logits that overflow in the second.
    (["--recipe", "fp16", "--lr", "1e6"], 0, True),
    (["--recipe", "fp16", "--lr", "1000", "--epochs", "2", "--examples", "320,64"], 1, True),
    (["--recipe", "fp32", "--parameters", "fp16", "--lr", "1.9", "--update", "grow"], None, False),
    (["--recipe", "fp16"], None, False), (["--recipe", "fp32"], None, False), (["--recipe", "bfp"], None, False),
])
def test_a_run_that_diverges_says_when(arguments, step, invalid, capsys):
    status, result, err = train(capsys, *arguments)
    assert status == 0 and result["invalid"] == invalid
    assert result["diverged"] == (None if step is None else {"epoch": 1, "step": step})
    assert (result["loss"] is None) == (step is not None)
    assert [row["loss"] is None for row in result["history"]] == [step is not None] * len(result["history"])
    assert err == ("" if step is None else f"narrowgauge train: warning: the run diverged in epoch 1, step {step}: "
                                           "a loss or a parameter is not finite\n")


@pytest.mark.parametrize("recipe", ["fp32", "bfp", "mx", "lns-madam", "fast", "cpt"])
def test_a_run_that_only_explodes_says_that_it_did_not_learn(recipe, capsys):
    status, result, err = train(capsys, "--recipe", recipe, "--lr", "1e6")
    assert status == 0 and result["diverged"] is None and result["loss"] > 4.6
    assert err == (f"narrowgauge train: warning: the run did not learn: its loss is {result['loss']:.4g}, that of "
                   "guessing 2.303\n")


def test_momentum_and_drops_reach_the_run(capsys):
    from narrowgauge.golden import datasets, network, recipes
    data, recipe = datasets.load("digits").first(64, 32), recipes.make("fp32")
    usual = train(capsys, "--recipe", "fp32")[1]
    assert (usual["momentum"], usual["lr"], usual["lr_drops"]) == (0.9, 0.1, [])
    assert usual["digest"] == network.train(recipe, data, epochs=1, lr=0.1).digest
    for arguments, others in (
            (["--momentum", "0"], {"momentum": 0.0}), (["--momentum", "0.5"], {"momentum": 0.5}),
            (["--lr-drops", "0.5"], {"lr_drops": (0.5,)}), (["--lr-drops", "0.25,0.5"], {"lr_drops": (0.25, 0.5)})):
        result = train(capsys, "--recipe", "fp32", *arguments)[1]
        assert result["digest"] == network.train(recipe, data, epochs=1, lr=0.1, **others).digest != usual["digest"]
        assert {name: tuple(value) if isinstance(value, list) else value for name, value in result.items()
                if name in others} == others


def test_the_usual_learning_rate_is_the_data_sets(capsys, tmp_path):
    import numpy as np
    rng = np.random.default_rng(1)
    for part in ("train", "t10k"):
        for name, shape in (("images-idx3", (64, 4, 4)), ("labels-idx1", (64,))):
            data = rng.integers(0, 10, shape, np.uint8)
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(header + data.tobytes())
    folder = ["--data", f"idx:{tmp_path}", "--recipe", "fp32"]
    usual, given = train(capsys, *folder)[1], train(capsys, *folder, "--lr", "0.02")[1]
    assert usual["lr"] == 0.02 and usual["digest"] == given["digest"]


def test_verbose_prints_a_line_per_epoch(capsys):
    arguments = ["train", "--recipe", "fp32", *SHORT, "--epochs", "3"]
    assert cli.main(arguments) == 0 and capsys.readouterr().err == ""
    assert cli.main([*arguments, "--verbose"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(re.fullmatch(r"epoch ./3: loss \d\.\d{4}, train 0\.\d{4}, test 0\.\d{4}", line) for line in lines)


def test_a_run_that_is_interrupted_is_resumed(capsys, tmp_path, monkeypatch):
    from narrowgauge.golden import network
    monkeypatch.chdir(tmp_path)
    usual = train(capsys, "--epochs", "3", "--recipe", "fp32")[1]
    assert usual["state_digest"] != usual["digest"] and "start" not in usual
    with monkeypatch.context() as patch:
        steps, real = [], network.run.gradients

        def gradients(*arguments):
            steps.append(arguments[6])
            if len(steps) == 4:
                raise KeyboardInterrupt
            return real(*arguments)

        patch.setattr(network.run, "gradients", gradients)
        status, result, err = train(capsys, "--epochs", "3", "--recipe", "fp32", "--save", "run.npz")
    assert (status, result) == (130, None)
    assert err == "narrowgauge train: interrupted after 3 of 6 steps; resume from run.npz\n"
    resumed = train(capsys, "--epochs", "3", "--recipe", "fp32", "--resume", "run.npz", "--save", "run.npz")
    assert resumed == (0, usual, "")
    started = train(capsys, "--recipe", "bfp", "--start", "run.npz")[1]
    assert started["start"] == usual["digest"] and len(started["history"]) == 1
    status, result, err = train(capsys, "--recipe", "bfp", "--epochs", "3", "--resume", "run.npz")
    assert status == 2 and err == "narrowgauge train: recipe.name is 'bfp'; allowed: 'fp32', as in run.npz\n"
    for option in ("--resume", "--start"):
        assert cli.main(["train", option, "run.npz", "--json", "./run.npz"]) == 2
        assert capsys.readouterr().err == (f"narrowgauge train: --json is './run.npz'; allowed: another file than that "
                                           f"of {option}\n")
    with monkeypatch.context() as patch:
        patch.setattr(network.run, "gradients", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train(capsys) == (130, None, "narrowgauge train: interrupted\n")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--momentum", "1"], "momentum is 1.0; allowed: a number from 0 to below 1"),
    (["--lr-drops", "half"], "lr-drops is 'half'; allowed: parts of the run such as 0.5 or 0.6,0.8"),
    (["--lr-drops", "1.5"], "lr_drops is (1.5,); allowed: numbers above 0 and below 1"),
    (["--lr", "nan"], "lr is nan; allowed: a number above 0, at most 1e6"),
    (["--set", "weights_mantissa=NaN"], "weights_mantissa is 'NaN'"),
    (["--batch", "65"], "batch is 65; allowed: an integer from 1 to 64"),
    (["--hidden", "0"], "hidden is (0,); allowed: at most 31 integers"),
])
def test_what_train_does_not_take_is_told_before_any_work(arguments, message, capsys, monkeypatch):
    from narrowgauge.golden import network
    monkeypatch.setattr(network, "train", lambda *_, **__: pytest.fail("trained"))
    status, _, err = train(capsys, *arguments)
    assert status == 2 and message in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [
    ["train", "--json", "no/such/run.json"], ["train", "--save", "no/such/run.npz"],
    ["simulate", "float-adder", "--waves", "no/such/waves.vcd"],
    ["simulate", "float-adder", "--json", "no/such/run.json"],
    ["synth", "float-adder", "--target", "ecp5", "--json", "."],
    ["list", "--json", "no/such/list.json"], ["report", "--output", "file/folder"], ["report", "--output", "occupied"],
    ["generate", "float-adder", "-o", ""], ["report", "--output", ""],
    ["simulate", "float-adder", "--waves", "run.vcd", "--json", "./run.vcd"],
    ["train", "--json", "run.npz", "--save", "./run.npz"],
], ids=" ".join)
def test_every_output_is_checked_before_any_work(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "occupied" / "report.md").mkdir(parents=True)
    parts = [word for word in arguments if "/" in word or word in ("", ".", "occupied")]
    with pytest.raises(ValueError) as caught:
        cli.prepare(arguments)
    assert repr(parts[-1]) in str(caught.value) or "occupied/report.md" in str(caught.value)
    assert "allowed: " in str(caught.value) and "\n" not in str(caught.value)
