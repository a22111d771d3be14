# amaranth: UnusedElaboratable=no
"""The bytes of Verilog texts and the digests of trainings are those of tests/bytes.txt, which changes on purpose alone.

`make bytes` prints the lines of today. ``python tests/test_bytes.py --write`` writes them to the file.
"""

import contextlib
import hashlib
import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from narrowgauge import __version__, catalog, cli
from narrowgauge.golden.recipes import RECIPES
from narrowgauge.golden.systems import SYSTEMS
from units import examples

FILE = Path(__file__).with_name("bytes.txt")
WRITE = "python tests/test_bytes.py --write"

# What a training of every recipe is tried with, and further settings of some recipes.
USUAL = ["", "--model cnn --hidden 2,3"]
TRAININGS = [*(f"--recipe {recipe} {more}".strip() for recipe in RECIPES for more in USUAL), *(
    f"--recipe {settings}" for settings in (
        "fp32 --batch-norm --hidden 8,4 --decay 0.01 --lr-drops 0.5",
        "fp32 --batch-norm --model cnn --hidden 2,3",
        "fp32 --softmax-bits 5",
        "fp32 --parameters bf16 --update stochastic",
        "fp16 --batch-norm",
        "fp16 --set chunk=8 --set loss_scale=1024 --set growth_interval=2",
        "fp16 --softmax-rounding stochastic",
        "bfp --batch-norm",
        "bfp --set accumulator=bf16 --set group=8 --set gradients_mantissa=2 --set weights_rounding=stochastic",
        "bfp --softmax-rounding nearest",
        "bfp --parameters bf16 --update kahan",
        "bfp --parameters bf16 --update grow --model cnn --hidden 2,3",
        """bfp --set weights_precision='{"policy": "cyclic", "low": 3, "high": 8, "cycles": 2}'""",
        "cpt --set cycles=2 --set gradients=4",
        "fast --set alpha=0.3 --set reverse=true",
        "mx --set element=int8 --set gradients_element=fp4-e2m1 --set block=16 --set gradients_rounding=stochastic",
        "mx --set accumulator=fp16 --parameters fp16 --update stochastic",
        "lns-madam --set update=sgd --set weights_bits=12",
        "lns-madam --set accumulation=bins --set accumulator=24 --set lsb=13 --set constants=4",
        "lns-madam --set lanes=8 --batch-norm --softmax-bits 6",
    )), *(f"--system {system}" for system in SYSTEMS)]
# Steps and examples of each: four, of which the last one is shorter.
SHORT = "--data digits --examples 104,16 --epochs 1 --json -"


def texts(unit):
    """Yield a line for each example of a unit: the module's name and the text's hash, whatever the version."""
    entry = catalog.find(unit)
    for parameters in examples(unit):
        text = entry.verilog(parameters).replace(f"narrowgauge {__version__};", "narrowgauge;")
        yield f"{entry.module_name(parameters)} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def trainings():
    """Yield a line for each training: its options and its digest, as `narrowgauge train` tells it."""
    for options in TRAININGS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = cli.main(["train", *shlex.split(options), *SHORT.split()])
        assert status == 0, options
        yield f"train {options} {json.loads(out.getvalue())['digest'][:16]}"


CASES = {**{unit: lambda unit=unit: texts(unit) for unit in catalog.UNITS}, "train": trainings}


def parts(lines):
    """Return {name: hash} of lines."""
    return dict(line.rsplit(" ", 1) for line in lines)


def kept():
    """Return {name: hash} of the file, by case."""
    found = {}
    for block in FILE.read_text().split("\n\n"):
        head, *lines = block.splitlines()
        found[head.removeprefix("# ")] = parts(lines)
    return found


def differences(case):
    """Return lines that tell how a case differs from the file."""
    now, before = parts(CASES[case]()), kept().get(case, {})
    return [f"{name}: {before.get(name, 'not there')} became {now.get(name, 'not there')}"
            for name in {**before, **now} if before.get(name) != now.get(name)]


@pytest.mark.parametrize("case", CASES)
def test_nothing_changed(case):
    found = differences(case)
    assert not found, "\n".join([*found, f"if that is meant: {WRITE}, and say why in the commit"])


def test_every_case_of_the_file_is_made():
    assert list(kept()) == list(CASES)


def test_a_difference_is_told(monkeypatch):
    name, text = "precision_cyclic_other 00", "precision_cyclic 0123456789abcdef"
    monkeypatch.setitem(CASES, "precision-cyclic", lambda: [text, name])
    before = kept()["precision-cyclic"]
    assert differences("precision-cyclic") == [
        f"precision_cyclic: {before['precision_cyclic']} became 0123456789abcdef",
        *(f"{other}: {digest} became not there" for other, digest in before.items() if other != "precision_cyclic"),
        "precision_cyclic_other: not there became 00"]


def main():
    """Print the lines of all cases, or write them to the file."""
    lines = "\n".join("\n".join([f"# {case}", *make()]) + "\n" for case, make in CASES.items())
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(lines)
    else:
        print(lines, end="")


if __name__ == "__main__":
    main()
