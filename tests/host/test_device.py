# amaranth: UnusedElaboratable=no
"""Training in a simulated device, by the driver and by the command line: golden's digest, and accuracies."""

import json
import subprocess
import sys
import time
from functools import lru_cache

import cores
import pytest
from narrowgauge import cli
from narrowgauge.cli.board import DIVISOR, NAME, TIMEOUT
from narrowgauge.golden import core, network
from narrowgauge.golden.host import Configuration
from narrowgauge.host import BoardFile, Device, Driver, Simulated
from narrowgauge.hw.host.text import serial_text
from narrowgauge.sim.host import DeviceModel

PATIENCE = 200_000  # cycles
RECIPE = cores.recipe_of("bfp", update="stochastic")
RUN, SETTINGS = cores.run_of(RECIPE, hidden=(20,))
COMMAND = ["--recipe", "bfp", "--work", "bf16", "--update", "stochastic", "--examples", "70,45", "--epochs", "1",
           "--hidden", "20", "--seed", "3", "--batch", "32", "--lr", "0.1"]


@lru_cache
def configuration():
    """Return the configuration of a small device."""
    return Configuration(core.trainer_of(RUN, rows=1, columns=2, converters=1, stream=2, adders=1, sums=2), 2048, 64)


@lru_cache
def text():
    return serial_text(configuration(), NAME, DIVISOR, TIMEOUT)


@lru_cache
def golden():
    return network.train(RECIPE, cores.DIGITS, **SETTINGS)


@pytest.fixture
def driver():
    with cores.alone():
        model = DeviceModel(NAME, text(), DIVISOR)
    made = Driver(Device(Simulated(model, PATIENCE), configuration()))
    yield made
    made.close()


def test_a_device_trains_to_the_digest_of_golden(driver, tmp_path):
    driver.load(RECIPE, cores.DIGITS, **SETTINGS)
    found = driver.train()
    assert (found.digest, found.state_digest) == (golden().digest, golden().state_digest)
    assert found.history == golden().history
    counted = driver.counters()
    assert 0 < counted["training_array"] < counted["training_cycles"] < driver.device.transport.model.cycles
    # Rows of examples were sent once, as bytes: all words together are fewer than those of the examples in 16 bits.
    assert driver.device.words < 32 * len(cores.DIGITS.train_x) + 32 * len(cores.DIGITS.test_x) + 3500
    assert [layer[0].size for layer in driver.parameters()] == [20 * 64, 10 * 20]
    driver.save(tmp_path / "run.npz")
    more = SETTINGS | {"epochs": 2}
    assert network.train(RECIPE, cores.DIGITS, resume=tmp_path / "run.npz", **more).digest == network.train(
        RECIPE, cores.DIGITS, **more).digest
    assert driver.evaluate() == golden().accuracy


def test_a_run_that_does_not_fit_is_refused_before_it_is_sent(driver):
    before = driver.device.words
    with pytest.raises(ValueError, match="^(weights|activations|errors) is .*; allowed: "):
        driver.load(RECIPE, cores.DIGITS, **SETTINGS | {"hidden": (200,)})
    assert driver.device.words == before


@pytest.mark.sweep
def test_the_command_line_trains_on_a_simulated_board(tmp_path, capsys):
    """`narrowgauge board` has the board, `narrowgauge train --host` and `run --host` are its hosts."""
    board, port = tmp_path / "board.json", tmp_path / "port"
    BoardFile("simulated", configuration(), 50.0, 50).write(board)
    with cores.alone():
        process = subprocess.Popen([sys.executable, "-m", "narrowgauge", "board", str(board), "--port-file", str(port)],
                                   stderr=subprocess.PIPE)
        while not port.exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
    try:
        where = ["--host", port.read_text().strip(), "--board", str(board)]
        saved = str(tmp_path / "run.npz")
        assert cli.main(["train", *COMMAND, *where, "--save", saved, "--json", str(tmp_path / "train.json")]) == 0
        told = json.loads((tmp_path / "train.json").read_text())
        assert told["host"]["identical"] and told["host"]["digest"] == told["digest"] == golden().digest
        assert told["host"]["state_digest"] == golden().state_digest
        at_once = ["run", *COMMAND, "--start", saved]
        at_once[at_once.index("--epochs"):at_once.index("--epochs") + 2] = []
        capsys.readouterr()
        assert cli.main([*at_once, *where, "--json", str(tmp_path / "run.json")]) == 0
        assert json.loads((tmp_path / "run.json").read_text())["accuracy"] == golden().accuracy
        assert cli.main([*at_once, "--json", str(tmp_path / "golden.json")]) == 0
        assert json.loads((tmp_path / "golden.json").read_text())["accuracy"] == golden().accuracy
    finally:
        process.terminate()
        process.wait(60)
    assert cli.main(["train", *COMMAND, *where]) == 2  # the board is gone
    assert where[1] in capsys.readouterr().err
