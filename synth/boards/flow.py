"""From a configuration to a board's bitstream: Yosys, nextpnr and ecppack."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import tools
from ..targets import TARGETS
from .board import Board
from .pll import PLL, pll
from .top import Top, platform_of

__all__ = ["MARGIN", "built", "clock_of", "counted"]

FAMILY = TARGETS["ecp5"]
MARGIN = 0.98    # of a clock that a placement reached, and that the next one is to reach
DEVICES = {"LFE5U-25F": "25k", "LFE5U-45F": "45k", "LFE5U-85F": "85k"}
SCRIPT = """\
read_verilog -D {macro} device.v
read_rtlil top.il
{synth} -top top
tee -q -o top.stat stat -json
write_json top.json
"""


def clock_of(board: Board, mhz: float | None = None) -> PLL:
    """Return the PLL for a board's clock, or for the fastest one that is not above `mhz`."""
    platform = platform_of(board)
    return pll(platform.default_clk_frequency / 1e6, board.mhz if mhz is None else mhz)


def built(board: Board, name: str, text: str, clock: PLL, work: Path, *, seeds: int = 3, placer: str | None = None,
          say: Callable[[str], None] = lambda message: None) -> dict[str, Any]:
    """Synthesise a device for a board, place and route it, and pack the bitstream.

    Where no seed reaches the clock, the PLL is set to one that a seed has reached, and the seeds are placed again.

    Parameters
    ----------
    board : Board
    name, text : str
        The module of a `SerialDevice`, and its Verilog.
    clock : PLL
    work : path
        The folder that all files are written into.
    seeds : int
        Placements, at the most, for a clock.
    placer : str, optional
        As for `synthesise`.
    say : callable
        Called with a line of text now and then.

    Returns
    -------
    dict
        ``fits``, ``misfit`` (what a board lacks, in one line, or None), ``lut``, ``ff``, ``dsp``, ``bram``,
        ``capacity`` (of these four), ``clock_mhz``, ``fmax_mhz``, ``seed``, ``bitstream`` (a name), ``tools``.
    """
    platform = platform_of(board)
    packages = tools.versions("ecp5", FAMILY)
    device = DEVICES[platform.device]
    plan = platform.prepare(Top(name, clock), "top")
    tools.write(work, {"device.v": text} | {name: _text(plan.files[name]) for name in ("top.lpf", "top.il")})
    say("synthesising")
    tools.yosys(work, SCRIPT.format(macro=FAMILY.devices[device].macro, synth=FAMILY.synth))
    package = platform._nextpnr_package_options[platform.package].upper()
    arguments = [f"--{device}", "--package", package, "--speed", str(platform.speed), "--lpf", "top.lpf", "--json",
                 "top.json", "--timing-allow-fail", *(["--placer", placer] if placer else [])]
    result = counted(work, arguments) | {"tools": packages, "clock_mhz": None, "fmax_mhz": None, "bitstream": None}
    if not result["fits"]:
        return result
    place = _Placement(work, arguments, say)
    seed, fmax = place.best(clock, seeds)
    while fmax < clock.mhz:
        clock = pll(clock.given, MARGIN * fmax)
        _set(work / "top.json", clock)
        seed, fmax = place.best(clock, seeds)
    tools.run("yowasp-ecppack", [*board.pack, "--input", f"seed{seed}.config", "--bit", "top.bit", "--svf", "top.svf"],
              work, "pack.log", logs=False)
    return result | {"clock_mhz": clock.mhz, "fmax_mhz": fmax, "seed": seed, "bitstream": "top.bit"}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else content.decode()


def counted(work: Path, arguments: list[str]) -> dict[str, Any]:
    """Return what the packed design needs and what the device has."""
    log = tools.run(FAMILY.nextpnr, [*arguments, "--pack-only"], work, "count.log")
    bels = {name: (int(used), int(available))
            for name, used, available in re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%$", log, re.M)}
    found: dict[str, Any] = {name: bels[bel][0] for name, bel in FAMILY.bels.items()}
    found["capacity"] = {name: bels[bel][1] for name, bel in FAMILY.bels.items()}
    over = [f"{used - available:,} {bel} too few: it needs {used:,}, and the device has {available:,}"
            for bel, (used, available) in bels.items() if used > available]
    return found | {"fits": not over, "misfit": "; ".join(over) or None}


class _Placement:
    """Places a design for a clock, seed by seed."""

    def __init__(self, work: Path, arguments: list[str], say: Callable[[str], None]) -> None:
        self.work, self.arguments, self.say = work, arguments, say

    def best(self, clock: PLL, seeds: int) -> tuple[int, float]:
        """Return (seed, MHz) of the first seed that reaches the clock, or else of the fastest one."""
        found: list[tuple[float, int]] = []
        failure: RuntimeError | None = None
        for seed in range(1, seeds + 1):
            self.say(f"placing and routing for {clock.mhz:.2f} MHz, seed {seed} of {seeds}")
            try:
                tools.run(FAMILY.nextpnr, [
                    *self.arguments, "--seed", str(seed), "--textcfg", f"seed{seed}.config", "--report",
                    f"seed{seed}.json"], self.work, f"seed{seed}.log")
            except RuntimeError as error:  # a seed may not find legal places
                failure = error
                continue
            report = json.loads((self.work / f"seed{seed}.json").read_text())
            found.append((min(each["achieved"] for each in report["fmax"].values()), seed))
            self.say(f"seed {seed}: {found[-1][0]:.2f} MHz")
            if found[-1][0] >= clock.mhz:
                break
        if not found:
            assert failure is not None
            raise failure
        fmax, seed = max(found)
        return seed, fmax


def _set(path: Path, clock: PLL) -> None:
    """Set the PLL of a netlist."""
    netlist = json.loads(path.read_text())
    cells = [cell for module in netlist["modules"].values() for cell in module["cells"].values()
             if cell["type"] == "EHXPLLL"]
    cells = [cell for cell in cells if "CLKI_DIV" in cell["parameters"]]
    assert len(cells) == 1
    cells[0]["parameters"] |= {name: f"{value:032b}" for name, value in clock.parameters.items()}
    cells[0]["attributes"]["FREQUENCY_PIN_CLKOP"] = str(clock.mhz)
    path.write_text(json.dumps(netlist))


