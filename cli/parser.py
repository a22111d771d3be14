"""The command line's verbs and options."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from .. import __version__
from . import output

__all__ = ["EPILOG", "EXAMPLES", "parser"]

BOARD_RUN = "--recipe bfp --work bf16 --update stochastic"
# Of each verb, commands that its help shows. The first ones are also shown by the help of all.
EXAMPLES = {
    "list": ("list", "list recipes"),
    "generate": ("generate bfp-fmac --set group=16 --set accumulator=bf16 -o fmac.v",
                 "generate bfp-fmac --ports axi --slice -o fmac.v"),
    "simulate": ("simulate bfp-converter --vectors 20000 --waves converter.vcd",
                 "simulate sgd-update --set grow=true --vectors 20000"),
    "vectors": ("vectors bfp-converter -o converter", "vectors bfp-fmac --set accumulator=bf16 -o fmac"),
    "package": ("package bfp-fmac --set accumulator=bf16 --ports axi --slice -o cores",
                "package softmax-grad --set classes=26 -o cores"),
    "train": ("train --recipe bfp --set mantissa=4 --data digits",
              f"train {BOARD_RUN} --examples 300,100 --epochs 2 --verbose --rtl --core rows=2 --core columns=2"),
    "run": (f"run {BOARD_RUN} --start run.npz",
            f"run {BOARD_RUN} --start run.npz --rtl --core rows=2 --core columns=2"),
    "build": (f"build --board ulx3s-85f {BOARD_RUN}", f"build --board simulated {BOARD_RUN} -o build/board"),
    "board": ("board build/board/board.json", "board build/board/board.json --divisor 16"),
    "plan": ("plan --recipe bfp --work bf16 --core lanes=8 --core vectors=2", f"plan {BOARD_RUN} --board ulx3s-25f"),
    "synth": ("synth bfp-fmac --target ecp5 --seeds 3 --json -", "synth lns-dot --target osu018"),
    "explore": ("explore formats", "explore bfp --workers 2 --output build/bfp"),
    "report": ("report", "report --quick --output build"),
}


def _shown(commands: Iterable[str]) -> str:
    return "examples:\n" + "".join(f"  narrowgauge {command}\n" for command in commands)


EPILOG = _shown(first for first, *_ in EXAMPLES.values()) + """
exit status: 0; 1 where hardware and golden model differ, or a unit does not fit; 2 for an error, told in one line;
130 when interrupted; 141 when the reader of standard output went away.
"""


class _Parser(argparse.ArgumentParser):
    """Prints with `output`: argparse itself ignores a reader that left and a full disk."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            output.put(message or "")
        else:
            output.tell(message or "", end="")


def parser() -> argparse.ArgumentParser:
    """Return the parser. The option ``module`` is the file of the verb."""
    top = _Parser(
        prog="narrowgauge", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="Generate, simulate and synthesise hardware that trains neural networks in narrow numbers.")
    top.add_argument("--version", action="version", version=f"narrowgauge {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB")

    def add(name: str, summary: str, detail: str = "") -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {detail}".strip(),
                                formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog=_shown(EXAMPLES[name]))
        verb.set_defaults(module=name)
        return verb

    def add_unit(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("unit", metavar="UNIT", help="a name that `narrowgauge list` shows")
        verb.add_argument("--set", metavar="NAME=VALUE", action="append", default=[],
                          help="set a parameter of the unit (repeatable); formats by preset name or as JSON")
        add_system(verb)

    def add_system(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--system", metavar="NAME",
                          help="the number system, of the array and of the recipe system: a name, or module:Class of "
                               "one's own, whose module lies in the folder or is installed")

    def add_ports(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--ports", metavar="STYLE", default="packed",
                          help="packed: each payload is one port; fields: each field of a payload is a port; axi: "
                               "AXI4-Stream; device, of the trainer alone: AXI4-Lite registers, and AXI4-Stream of "
                               "packets (default packed)")
        verb.add_argument("--slice", action="store_true",
                          help="put a register slice before the unit: i_ready no longer depends on o_ready")

    def add_json(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--json", metavar="FILE", help="also write the result as JSON (- for standard output)")

    def add_run(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--recipe", metavar="NAME",
                          help="a name that `narrowgauge list recipes` shows (default bfp; with --system: system)")
        add_system(verb)
        verb.add_argument("--set", metavar="NAME=VALUE", action="append", default=[],
                          help="set one of the recipe's settings (repeatable), which `narrowgauge list recipes` shows: "
                               "mantissa=4, weights_precision='{\"policy\": \"cyclic\", \"low\": 3, \"high\": 8, "
                               "\"cycles\": 32}'")
        verb.add_argument("--work", metavar="FORMAT",
                          help="what every tensor is kept in and every operation is rounded to: fp32, fp16, bf16, or "
                               "another format of at most 11 significant bits as JSON (default: the recipe's, mostly "
                               "fp32); GEMMs then add in it too, unless --set accumulator says otherwise")
        verb.add_argument("--data", metavar="NAME", default="digits",
                          help="a name that `narrowgauge list data` shows, such as clusters-128, idx:/folder or "
                               "npz:/file.npz (default digits)")
        verb.add_argument("--examples", metavar="N[,N]", help="only the first N training (and test) examples")
        verb.add_argument("--seed", metavar="S", type=_natural, default=1, help="default 1")
        verb.add_argument("--epochs", metavar="N", type=_count, default=20, help="default 20")
        verb.add_argument("--lr", metavar="R", type=float,
                          help="learning rate of SGD; lns-madam's weights have their own, see rate (default: the data "
                               "set's usual one, 0.1, or 0.02 for fashion-mnist, idx: and npz:)")
        verb.add_argument("--lr-drops", metavar="PART[,PART...]",
                          help="parts of the run after which that rate halves, such as 0.6,0.8; lns-madam's weights "
                               "have rate_drops (default: none)")
        verb.add_argument("--momentum", metavar="M", type=float, default=0.9,
                          help="of SGD, from 0 to below 1 (default 0.9)")
        verb.add_argument("--batch", metavar="N", type=_count, default=32, help="default 32")
        verb.add_argument("--model", metavar="NAME", default="mlp",
                          help="mlp; cnn: two 3x3 convolutions and a linear layer; or a file of layers, whose name "
                               "ends in .toml or .json (default mlp)")
        verb.add_argument("--hidden", metavar="N[,N...]",
                          help="sizes of the hidden layers (default 32), or channels of the convolutions (default "
                               "8,16); not for a file")
        verb.add_argument("--softmax-bits", metavar="B", type=_count,
                          help="take the errors p - y from the unit softmax-grad, in B bits (2 to 16)")
        verb.add_argument("--softmax-rounding", metavar="KIND",
                          help="of those errors: nearest, truncate or stochastic (default nearest); without "
                               "--softmax-bits, in as many bits as the number of classes needs")
        verb.add_argument("--batch-norm", action="store_true",
                          help="normalise hidden layers by the batch's statistics; a file says it layer by layer")
        verb.add_argument("--update", metavar="KIND", default="plain",
                          help="how SGD moves parameters: plain, stochastic, kahan, grow (default plain)")
        verb.add_argument("--parameters", metavar="FORMAT",
                          help="in which parameters, velocities and compensations are kept: bf16, fp16, fp32, ..., or "
                               "JSON (default: what the recipe works in)")
        verb.add_argument("--decay", metavar="D", type=float, default=0.0, help="weight decay of SGD (default 0)")

    def add_core(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--core", metavar="NAME=VALUE", action="append", default=[],
                          help="set a parameter of the core (repeatable): rows=4, lanes=8, activations=32768; "
                               "docs/units/core.md lists them")
        verb.add_argument("--parts", metavar="N", type=_count, default=1,
                          help="parts of a batch that follow each other through the core, 1 to 8 (default 1)")
        verb.add_argument("--blocks", metavar="N", type=_count, default=1,
                          help="parts of the first layer's outputs, 1 to 8 (default 1)")

    verb = add("list", "show what there is of a kind, such as units or recipes",
               "Each has a summary, and most have parameters with their defaults.")
    verb.set_defaults(module="listing")
    verb.add_argument("kind", metavar="KIND", nargs="?", default="units",
                      help="units, recipes, formats, systems (of numbers, for the array), targets, boards or data "
                           "(default units)")
    verb.add_argument("--json", metavar="FILE", nargs="?", const="-", help="as JSON (default: standard output)")

    verb = add("generate", "write a unit's Verilog",
               "Plain Verilog-2005, the same bytes every time; its header explains every port.")
    add_unit(verb)
    add_ports(verb)
    verb.add_argument("--template", metavar="KIND", nargs="?", const="verilog",
                      help="write text for your design instead: verilog: an instance with its wires (default); "
                           "package: the payloads as packed structures in SystemVerilog")
    verb.add_argument("-o", "--output", metavar="FILE", help="the file (default, and -: standard output)")

    verb = add("simulate", "hold a unit's Verilog against its golden model, bit for bit",
               "Random, directed and recorded vectors under random stalls; exit status 1 if any code differs.")
    add_unit(verb)
    verb.add_argument("--vectors", metavar="N", type=_count, default=10000, help="transfers to drive (default 10000)")
    verb.add_argument("--seed", metavar="S", type=_natural, default=1, help="seed of vectors and stalls (default 1)")
    verb.add_argument("--waves", metavar="FILE", help="write a waveform, in VCD: a name that ends in .vcd")
    add_json(verb)

    verb = add("vectors", "write a unit's test vectors, and a bench in plain Verilog that checks itself",
               "For those who run no Python: the unit, its inputs and outputs in hexadecimal, a JSON file that "
               "explains them,\nand a bench that any Verilog simulator runs in that folder. Its last line begins with "
               "PASS or FAIL.")
    add_unit(verb)
    verb.add_argument("--vectors", metavar="N", type=_count, default=1000, help="transfers to write (default 1000)")
    verb.add_argument("--seed", metavar="S", type=_natural, default=1, help="seed of vectors and stalls (default 1)")
    verb.add_argument("-o", "--output", metavar="FOLDER", required=True, help="made if it is not there")

    verb = add("package", "write a unit with files for FuseSoC, IP-XACT and Vivado",
               "Beside the Verilog: a .core file for FuseSoC, IP-XACT of 2009 and 2014, and a Tcl script for "
               "Vivado's\nIP packager, which has never been run.")
    add_unit(verb)
    add_ports(verb)
    verb.add_argument("-o", "--output", metavar="FOLDER", required=True, help="made if it is not there")

    verb = add("train", "train a network with the golden model",
               "A 64-32-10 perceptron on digits by default. Same seed, same digest.\n\n"
               "A run diverges when a loss or a parameter is not finite. It says so on standard error, and its JSON "
               "has the epoch\n(from 1) and the step (from 0) as `diverged`. Its exit status is 0.\n\n"
               "With --rtl a core trains beside it, in simulated Verilog, and must end with the same digest.\nExit "
               "status 1 if it does not.")
    add_run(verb)
    verb.add_argument("--save", metavar="FILE",
                      help="save the run's state (npz) after each epoch, and when it is interrupted; with --rtl the "
                           "core's state")
    verb.add_argument("--resume", metavar="FILE",
                      help="go on with a saved run, with the options that it was given; --epochs is the total")
    verb.add_argument("--start", metavar="FILE",
                      help="begin with the parameters of a saved run, which has the same layers and formats")
    verb.add_argument("--verbose", action="store_true", help="print a line per epoch to standard error")
    verb.add_argument("--plot", metavar="FILE", help="draw loss and accuracy of each epoch: a name that ends in .svg")
    add_json(verb)
    verb.add_argument("--rtl", action="store_true",
                      help="also train in the Verilog of a core, just large enough, which is built and simulated; the "
                           "options that follow are for it")
    add_core(verb)
    verb.add_argument("--program", metavar="FILE", help="write the core's program, as text")
    verb.add_argument("--check", metavar="WHEN",
                      help="compare the core's memories with golden's after each step, or after each instruction")
    verb.add_argument("--waves", metavar="FILE", help="write a waveform, in VCD: a name that ends in .vcd")
    verb.add_argument("--window", metavar="FIRST,LAST",
                      help="cycles of the waveform (default: all, which takes much room)")

    def add_host(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--host", metavar="PORT",
                          help="a board's serial port, such as /dev/ttyUSB0, or litex:HOST:PORT for a LiteX server")
        verb.add_argument("--board", metavar="FILE", help="board.json, which `narrowgauge build` wrote; with --host")
        verb.add_argument("--timeout", metavar="S", type=float,
                          help="seconds to wait for a board's next byte (default 5, or 60 at a pseudo terminal); with "
                               "--host")

    add_host(verb)
    verb = add("run", "measure the accuracy of saved weights",
               "In golden's model of a core; with --rtl in simulated Verilog, with --host on a board.")
    add_run(verb)
    verb.add_argument("--start", metavar="FILE", required=True, help="a saved run, with its options")
    verb.add_argument("--rtl", action="store_true", help="in the Verilog of a core, which is built and simulated")
    add_core(verb)
    add_host(verb)
    add_json(verb)

    verb = add("build", "make a bitstream for a board, and what its host needs",
               "A core for the given run, just large enough but for what the board usually has, behind a serial "
               "line.\n`narrowgauge list boards` shows the boards. Exit status 1 where the board is too small.")
    verb.add_argument("--board", metavar="NAME", required=True, help="a name that `narrowgauge list boards` shows")
    add_run(verb)
    add_core(verb)
    verb.add_argument("--clock", metavar="MHZ", type=float, help="the fastest clock to try (default: the board's)")
    verb.add_argument("--seeds", metavar="N", type=_count, default=3,
                      help="place-and-route seeds to try for a clock, at the most (default 3)")
    verb.add_argument("--placer", metavar="NAME", help="another placer of nextpnr's: static, sa, or heap (default)")
    verb.add_argument("-o", "--output", metavar="FOLDER", help="default build/BOARD")
    add_json(verb)

    verb = add("board", "simulate a board behind a pseudo terminal",
               "Prints the terminal's path, and runs until it is interrupted. A host opens the path as a serial port.")
    verb.add_argument("file", metavar="FILE", help="board.json, which `narrowgauge build` wrote")
    verb.add_argument("--divisor", metavar="N", type=_count, default=4,
                      help="clock cycles of a bit on the line: fewer than on the board, to be faster (default 4)")
    verb.add_argument("--port-file", metavar="FILE", help="also write the path into a file")

    verb = add("plan", "tell whether a training run fits a core, and how fast it is there",
               "By golden's model of a core's cycles, in seconds; nothing is trained. Without --core the core is just "
               "large enough.\n\nExit status 1 where the run does not fit the core.")
    add_run(verb)
    add_core(verb)
    verb.add_argument("--clock", metavar="MHZ", type=float, help="for the seconds (default 80, or the board's)")
    verb.add_argument("--board", metavar="NAME",
                      help="a name that `narrowgauge list boards` shows: its usual core and clock, its block RAMs, and "
                           "the time on its serial line")
    add_json(verb)

    verb = add("synth", "synthesise a unit, place and route it, and tell what it costs",
               "`narrowgauge list targets` shows for which targets it is placed and routed, and their devices.")
    add_unit(verb)
    verb.add_argument("--target", metavar="NAME", required=True,
                      help="a name that `narrowgauge list targets` shows, such as ecp5")
    verb.add_argument("--device", metavar="NAME", help="another device of the target, such as hx8k for ice40")
    verb.add_argument("--seeds", metavar="N", type=_count, default=3, help="place-and-route seeds 1..N (default 3)")
    verb.add_argument("--placer", metavar="NAME",
                      help="another placer of nextpnr's: static, for what is very large, sa, or heap (default)")
    verb.add_argument("--liberty", metavar="FILE",
                      help="with --target asic: map the unit to this library of standard cells, and tell its area, "
                           "longest path and energy, all before layout")
    add_json(verb)

    verb = add("explore", "train and synthesise many formats, and hold accuracy against cost",
               "A space is a file in TOML, or the name of a shipped one: formats, bfp, precision-policies, "
               "softmax-bits,\nsoftmax-guideline. Writes report.html and explore.json. What was done is kept: after a "
               "stop the same command goes on.")
    verb.add_argument("space", metavar="SPACE", help="a name, or a file whose name ends in .toml")
    verb.add_argument("--workers", metavar="N", type=_count, help="commands at a time (default: the cores)")
    verb.add_argument("--scheduler", metavar="ADDRESS",
                      help="run them on a Dask cluster instead, such as tcp://host:8786; its workers need narrowgauge")
    verb.add_argument("--output", metavar="FOLDER", help="default build/explore/ and the space's name")
    verb.add_argument("--verbose", action="store_true", help="print progress as lines to standard error")
    add_json(verb)

    verb = add("report", "train, simulate, synthesise and write one report of it all",
               "Writes report.html, report.md, report.json and the plots.")
    verb.add_argument("--output", metavar="FOLDER", default="build", help="default build")
    verb.add_argument("--quick", action="store_true", help="fewer units: what `make demo` does")
    verb.add_argument("--seeds", metavar="N", type=_count, default=3, help="place-and-route seeds 1..N (default 3)")
    return top


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: an integer of 1 or more")
    return value


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: an integer from 0 to {2**31 - 1}")
    return int(text)


