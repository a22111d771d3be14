# amaranth: UnusedElaboratable=no
"""The entry of a unit: all that tests, report and lint know of it."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..base.parameters import Parameters
from ..golden import mx, systems
from ..golden.formats import Format, name_of
from ..hw import ports, verilog
from ..hw.origin import LICENCE, ORIGIN
from ..sim import operands
from ..sim.vectors import Vectors

__all__ = ["Bench", "Unit"]

LONGEST = 120  # characters of a module name
# What stands before numbers in module names, and before a format.
SHORT = {"group": "g", "mantissa": "m", "exponent": "e", "accumulators": "a", "random_bits": "k", "seed": "s",
         "latency": "l", "block": "b", "lanes": "n", "accumulator": "acc", "constants": "c", "fraction": "f",
         "second_bits": "v", "second_gamma": "vg", "second_bias": "vb", "memory": "mem",
         "classes": "n", "bits": "b", "iterations": "i", "cycles": "n", "low": "lo", "high": "hi", "gradients": "gr",
         "guard": "gd", "activations": "x", "errors": "d", "weights": "w", "labels": "lb", "adders": "add",
         "program": "pg", "stream": "st", "examples": "ex", "error_bits": "eb",
         "count": "ct", "buffer": "buf", "sum_bits": "sb", "converters": "cv"}
BEFORE = {"narrow": "to_"}


@dataclass(frozen=True)
class Bench:
    """The functions of a unit's bench; each takes the unit's parameters first.

    Attributes
    ----------
    random : callable
        Makes random and directed transfers from their number and a seed: the arguments of `vectors`.
    recorded : callable
        Makes such transfers from the tensors of a training run.
    vectors : callable
        Makes Vectors of transfers, with what the golden function answers.
    operands : callable, optional
        Makes such transfers as the energy is measured with, from their number, a seed and a kind of `sim.operands`:
        at the greatest precision.
    """

    random: Callable
    recorded: Callable
    vectors: Callable
    operands: Callable | None = None


@dataclass(frozen=True, eq=False)
class Unit:
    """One entry.

    Attributes
    ----------
    name, summary : str
    parameters : type
        Frozen dataclass of parameters; its defaults are the default configuration.
    component : type
        Makes the component from parameters. Its ``meanings`` say what the fields of its ports mean.
    golden : callable
        The golden function: takes parameters and arrays. Of the array, the golden model's class.
    bench : Bench
    small : dict
        Settings of a small example, which builds and simulates quickly.
    corners : tuple of dict
        Settings of more examples, at the ends of what the unit's text depends on.
    shown : tuple of dict
        Settings of which the report tells.
    macs : callable, optional
        Multiply-accumulates per cycle at the generated precision, from the parameters; None for
        a unit that makes none.
    chunk_macs : callable, optional
        Multiply-accumulates of 2-bit chunks per cycle; None likewise.
    """

    name: str
    summary: str
    parameters: type[Parameters]
    component: type
    golden: Callable
    bench: Bench
    small: dict
    corners: tuple[dict, ...]
    shown: tuple[dict, ...] = ({},)
    macs: Callable | None = None
    chunk_macs: Callable | None = None

    @property
    def examples(self) -> list[Parameters]:
        """Parameters of the examples: the small one, the default, the corners; each once."""
        return list(dict.fromkeys(self.configure(row) for row in (self.small, {}, *self.corners)))

    def configure(self, settings: dict) -> Parameters:
        """Return the parameters made from a dict of settings; ValueError tells what is wrong."""
        return self.parameters.from_json(settings)

    def module_name(self, parameters: Parameters) -> str:
        """Return the Verilog module name: unit, format or sizes, and what else is not default.

        Parameters that differ have names that do. A name has `LONGEST` characters at the most, and is an identifier.
        """
        words = [self.name]
        fields, usual = dict(vars(parameters)), _usual(parameters)
        if "system" in fields:
            # A number system has settings of its own.
            system = fields.pop("system")
            words += [systems.name_of(system), f"{fields.pop('rows')}x{fields.pop('columns')}"]
            settled, normal = ({systems.beside(name, usual): value for name, value in each.items()}
                               for each in (vars(system), _usual(system)))
            fields, usual = settled | fields, usual | normal
        if "format" in usual:
            words.append(_word("format", fields["format"]))
        for name, value in fields.items():
            if name in ("group", "mantissa", "exponent", "block", "element"):
                words.append(_word(name, value))
            elif name != "format" and value != usual[name]:
                # The format of the sums stands alone; that of an array's memory is told from it.
                beside = name == "work" and "accumulator" in fields
                words.append("work_" * beside + _word(name, value))
        name = "_".join(words)
        plain = re.sub(r"\W|__+", "_", name.replace("-", "_"), flags=re.ASCII)
        if len(plain) <= LONGEST and plain.isascii():
            return plain
        digest = hashlib.sha256(json.dumps(parameters.to_json(), sort_keys=True).encode()).hexdigest()[:12]
        return f"{plain[:LONGEST - len(digest) - 1].rstrip('_')}_{digest}"  # two underscores part a submodule's name

    def header(self, parameters: Parameters) -> str:
        """Return the comment that opens the unit's Verilog."""
        component = self.component(parameters)
        lines = [
            f"{self.name}: {self.summary}",
            f"parameters: {json.dumps(parameters.to_json())}",
            _timing(component),
            *LICENCE,
            f"{ORIGIN}; ports:",
            "  clk  in 1  clock, rising edge",
            "  rst  in 1  synchronous reset, active high",
        ]
        lines += [f"  {line}" for line in verilog.describe_ports(component)]
        return "\n".join(lines)

    def verilog(self, parameters: Parameters) -> str:
        """Return the unit's Verilog text."""
        return verilog.emit(self.component(parameters), self.module_name(parameters), self.header(parameters))

    def wrapped(self, parameters: Parameters, style: str = "packed", sliced: bool = False) -> str:
        """Return the unit's Verilog with a style of ports (a key of `hw.ports.STYLES`) and, `sliced`, a register slice.

        Without either it is the unit's own. Otherwise a wrapper stands before it.
        """
        if style == "packed" and not sliced:
            return self.verilog(parameters)
        component, name = self.component(parameters), self.module_name(parameters)
        timing = _timing(component, ports.SLICE if sliced else 0)
        return ports.wrap(component, name, self.verilog(parameters), style, sliced, timing)

    def template(self, parameters: Parameters, kind: str, style: str = "packed", sliced: bool = False) -> str:
        """Return a template for the use of what `wrapped` returns: a key of `hw.ports.TEMPLATES`."""
        return ports.template(kind, self.component(parameters), self.module_name(parameters),
                              self.name.replace("-", "_"), style, sliced)

    def stimuli(self, parameters: Parameters, count: int, seed: int) -> dict[str, Vectors]:
        """Return the Vectors that the energy is measured with, by their kind; see `sim.operands`."""
        makers: dict[str, Callable] = {"recorded": self.bench.recorded, "random": self.bench.random}
        if self.bench.operands is not None:
            makers = {kind: partial(self.bench.operands, kind=kind) for kind in operands.KINDS}
        return {kind: self.bench.vectors(parameters, *make(parameters, count, seed)) for kind, make in makers.items()}

    def vectors(self, parameters: Parameters, count: int, seed: int, *, record: bool = True) -> Vectors:
        """Return bench Vectors: random and directed ones, and with `record` one in five recorded."""
        recorded = count // 5 if record else 0
        parts = [self.bench.random(parameters, count - recorded, seed)]
        if recorded:
            parts.append(self.bench.recorded(parameters, recorded, seed))
        arrays = [np.concatenate(each) for each in zip(*parts, strict=True)]
        return self.bench.vectors(parameters, *arrays)


def _timing(component: Any, more: int = 0) -> str:
    """Return the header's line of a component's timing, with `more` cycles of latency."""
    recurrence = f", recurrence {component.recurrence}" if hasattr(component, "recurrence") else ""
    return f"latency {component.latency + more} cycles, interval {component.interval}{recurrence}"


def _usual(parameters: Any) -> dict[str, Any]:
    """Return the values that a name leaves out: defaults, and for a further format of the first one's type, the first.

    Where there is one format alone, other defaults may depend on it.
    """
    make = type(parameters)
    types = {field.name: field.type for field in dataclasses.fields(make)}
    formats = [name for name, kind in types.items() if kind is types.get("format")]
    if not formats:
        return vars(make())
    if len(formats) == 1:
        return vars(make(format=parameters.format))
    return vars(make()) | dict.fromkeys(formats, parameters.format)


def _word(name: str, value: object) -> str:
    """Return what a module name says of a parameter."""
    if isinstance(value, Format):
        named = name_of(value) or next((word for word, element in mx.ELEMENTS.items() if element == value), None)
        return BEFORE.get(name, "") + (named or value.sizes.replace("-", "n"))
    if isinstance(value, Parameters):
        usual = vars(type(value)())
        return "_".join([name, *(_word(each, own) for each, own in vars(value).items() if own != usual[each])])
    if isinstance(value, bool):
        return name if value else f"not_{name}"
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return "_".join(value)
    return f"{SHORT.get(name, name)}{value}".replace("-", "n")
