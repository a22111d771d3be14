# amaranth: UnusedElaboratable=no
"""Hashes of the Verilog of every unit's examples, and digests of short trainings.

`make bytes` prints a line for each. tests/bytes.txt holds the lines that are expected: it changes on purpose alone.
``python tests/hashes.py --write`` writes the lines of today to it; with units or ``train`` behind it, theirs alone.
"""

import contextlib
import hashlib
import io
import json
import shlex
import sys
from pathlib import Path

from narrowgauge import __version__, catalog, cli
from narrowgauge.golden.recipes import RECIPES
from narrowgauge.golden.systems import SYSTEMS
from narrowgauge.hw.origin import LICENCE
from units import examples, text_of

__all__ = ["differences", "kept", "line", "trainings"]

FILE = Path(__file__).with_name("bytes.txt")
WRITE = "python tests/hashes.py --write"

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
        "fp32 --work bf16 --batch-norm --model cnn --hidden 2,3",
        """bfp --work '{"type": "Float", "exponent": 6, "mantissa": 8}' --softmax-rounding stochastic""",
        "mx --work bf16 --update kahan --set accumulator=fp32",
    )), *(f"--system {system}" for system in SYSTEMS)]
# Steps and examples of each: four, of which the last one is shorter.
SHORT = "--data digits --examples 104,16 --epochs 1 --json -"


def line(unit, parameters):
    """Return the line of a unit's example: the module's name and the text's hash, whatever version and licence say."""
    text = text_of(unit, parameters).replace(f"narrowgauge {__version__};", "narrowgauge;")
    text = text.replace("".join(f"// {each}\n" for each in LICENCE), "")
    return f"{catalog.find(unit).module_name(parameters)} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def trainings():
    """Yield a line for each training: its options and its digest, as `narrowgauge train` tells it."""
    for options in TRAININGS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = cli.main(["train", *shlex.split(options), *SHORT.split()])
        assert status == 0, options
        yield f"train {options} {json.loads(out.getvalue())['digest'][:16]}"


def write(writes, *names):
    """Print the lines of units and trainings, or write them to the file: of all, or of some units, or of ``train``."""
    every = [*catalog.UNITS, "train"]
    blocks = kept_blocks() if writes else {}
    for name in names or every:
        blocks[name] = list(trainings()) if name == "train" else [line(name, each) for each in examples(name)]
    text = "\n".join("\n".join([f"# {name}", *blocks[name]]) + "\n" for name in every if name in blocks)
    if writes:
        FILE.write_text(text)
    else:
        print(text, end="")


def kept_blocks():
    """Return {heading: lines} of the file."""
    blocks = (block.splitlines() for block in FILE.read_text().split("\n\n"))
    return {heading.removeprefix("# "): lines for heading, *lines in blocks}


def kept():
    """Return {name: hash} of the file."""
    lines = FILE.read_text().splitlines()
    return dict(each.rsplit(" ", 1) for each in lines if each and not each.startswith("#"))


def differences(lines):
    """Return what of some lines the file says otherwise, as text."""
    before = kept()
    now = dict(each.rsplit(" ", 1) for each in lines)
    found = [f"{name}: {before.get(name, 'not there')} became {digest}" for name, digest in now.items()
             if before.get(name) != digest]
    return "\n".join([*found, f"if that is meant: {WRITE}, and say why in the commit"]) if found else ""


if __name__ == "__main__":
    write("--write" in sys.argv, *(name for name in sys.argv[1:] if name != "--write"))
