"""Training in simulated cores of every kind: ``train --rtl`` ends with golden's digest. Each core takes a minute."""

import json
import shlex

import numpy as np
import pytest
from cores import alone
from test_cli import run

USUAL = ("train", "--recipe", "bfp", "--work", "bf16", "--epochs", "1", "--seed", "3", "--rtl", "--json", "-")
SMALL = ("--core", "rows=1", "--core", "columns=1", "--core", "converters=1", "--core", "buffer=1024")
WORK = '{"type": "Float", "exponent": 6, "mantissa": 9}'


def identical(capsys, *options):
    """Return the JSON of a run that ended with one digest twice."""
    with alone():
        status, out, err = run(capsys, *USUAL, *options)
    assert status == 0, out + err
    told = json.loads(out)
    assert told["rtl"]["identical"] and told["rtl"]["digest"] == told["digest"]
    return told


@pytest.mark.sweep
@pytest.mark.parametrize("options", [
    "--softmax-bits 5 --softmax-rounding stochastic --parts 2 --check step", "--softmax-rounding truncate --batch 31",
    "--softmax-bits 2", "--softmax-rounding stochastic --batch 1", "--hidden 8,8,8,8,8,8,8,8,8 --lr-drops 0.3,0.5",
    "--hidden 5,70 --batch 70 --update stochastic --decay 0.01 --momentum 0", "--hidden 33 --batch 69 --lr-drops 0.9",
    "--work fp16 --softmax-bits 9", f"--work '{WORK}'", "--set mantissa=8 --set exponent=5 --set group=32",
    "--recipe mx --check step", "--recipe system --set system=int8 --parts 1 --hidden 33,7",
    "--recipe system --set system=fp8 --parts 2 --blocks 2",
    "--recipe fp16 --softmax-bits 9", "--recipe fp16 --set chunk=null --softmax-bits 9 --batch 40",
    "--recipe fp16 --set loss_scale=16777216 --set growth_interval=1 --softmax-bits 9 --batch 9",
    "--recipe fp16 --set loss_scale=1024 --softmax-bits 9 --model cnn --hidden 3,4"])
def test_options_of_training(capsys, options):
    identical(capsys, *SMALL, "--examples", "70,45", *shlex.split(options))


@pytest.mark.sweep
def test_convolutions_of_digits(capsys):
    """Two convolutions, the second with a stride, and a linear layer, in a core of 2 x 2 cells and one of 1 x 1."""
    options = shlex.split("--model cnn --hidden 8,16 --examples 300,100")
    told = identical(capsys, *options, "--core", "rows=2", "--core", "columns=2")
    assert told["rtl"]["utilisation"] > 0.65
    again = identical(capsys, *SMALL, *options, "--parts", "2")
    assert again["digest"] == told["digest"]


@pytest.mark.sweep
@pytest.mark.parametrize("mantissa, share", [(4, 0.7), (2, 0.3)])
def test_a_network_of_784_features(capsys, tmp_path, mantissa, share):
    """An epoch of 784-32-10 in a 4 x 4 core with 4 lanes, as for Fashion-MNIST: 4,000 examples come from the host."""
    rng = np.random.default_rng(1)
    centres, y = rng.random((10, 784)), rng.integers(0, 10, 4200)
    x = np.clip(centres[y] + rng.normal(0, 0.4, (4200, 784)), 0, 1)
    x[:, rng.random(784) < 0.3] = 0  # as in pictures, much is 0
    np.savez(tmp_path / "wide.npz", train_x=x[:4000].astype(np.float32), train_y=y[:4000],
             test_x=x[4000:].astype(np.float32), test_y=y[4000:])
    told = identical(capsys, "--data", f"npz:{tmp_path}/wide.npz", "--set", f"mantissa={mantissa}", "--core",
                     "mantissa=4", "--core", "lanes=4", "--core", 'updates=["plain","stochastic"]')
    assert told["rtl"]["steps"] == 125 and told["accuracy"]["test"] > 0.8
    assert told["rtl"]["utilisation"] > share
