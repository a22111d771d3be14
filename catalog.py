# amaranth: UnusedElaboratable=no
"""The catalogue: every unit by name, with its parameters, component, bench and module name."""

import hashlib
import importlib
import json
import re
from dataclasses import dataclass

import numpy as np

from . import __version__
from .base.checks import require
from .golden import logarithmic, mx
from .golden.array import ArrayParameters, peak
from .golden.blockfloat import ConverterParameters, FMACParameters
from .golden.floating import AdderParameters, CastParameters, FMAParameters, MACParameters, MultiplierParameters
from .golden.formats import Fixed, Float, Log, name_of
from .golden.madam import MadamParameters
from .golden.precision import AdaptiveParameters, CyclicParameters
from .golden.softmax import SoftmaxParameters
from .golden.update import SGDParameters
from .hw import verilog
from .hw.array import CellArray
from .hw.blockfloat import BFPFMAC, BFPConverter
from .hw.floating import FloatAdder, FloatCast, FloatFMA, FloatMAC, FloatMultiplier
from .hw.logarithmic import LNSConverter, LNSDecoder, LNSDot
from .hw.madam import MadamUpdate
from .hw.mx import MXConverter, MXDot
from .hw.precision import PrecisionAdaptive, PrecisionCyclic
from .hw.softmax import SoftmaxGrad
from .hw.update import SGDUpdate

__all__ = ["UNITS", "Unit", "find"]

LONGEST = 120  # characters of a module name
# What stands before numbers and some formats in module names.
SHORT = {"group": "g", "mantissa": "m", "exponent": "e", "accumulators": "a", "random_bits": "k", "seed": "s",
         "latency": "l", "block": "b", "lanes": "n", "accumulator": "acc", "constants": "c", "fraction": "f",
         "narrow": "to_", "second_bits": "v", "second_gamma": "vg", "second_bias": "vb", "memory": "mem",
         "classes": "n", "bits": "b", "iterations": "i", "cycles": "n", "low": "lo", "high": "hi", "gradients": "gr",
         "guard": "gd", "count": "ct", "buffer": "buf", "sum_bits": "sb", "converters": "cv"}


@dataclass(frozen=True)
class Unit:
    """One entry.

    Attributes
    ----------
    name, summary : str
    parameters : type
        Frozen dataclass of parameters; its defaults are the default configuration.
    component : callable
        Makes the component from parameters.
    topic : str
        Module in `sim` whose ``<last word of the name>_random``, ``_recorded`` and ``_vectors``
        are the unit's bench.
    macs : callable
        Multiply-accumulates per cycle at the generated precision, from the parameters; None for
        a unit that makes none.
    chunk_macs : callable
        Multiply-accumulates of 2-bit chunks per cycle; None likewise.
    """

    name: str
    summary: str
    parameters: type
    component: type
    topic: str
    macs: object = None
    chunk_macs: object = None

    def configure(self, settings):
        """Return the parameters made from a dict of settings; ValueError tells what is wrong."""
        return self.parameters.from_json(settings)

    def module_name(self, parameters):
        """Return the Verilog module name: unit, format or sizes, and what else is not default.

        Parameters that differ have names that do. A name has `LONGEST` characters at the most, and is an identifier.
        """
        words = [self.name]
        fields, usual = dict(vars(parameters)), vars(self.parameters())
        if "system" in fields:
            # An array's number system has settings of its own; those of the array have no names in common with them.
            system = fields.pop("system")
            words += [parameters.name, f"{fields.pop('rows')}x{fields.pop('columns')}"]
            fields, usual = vars(system) | fields, usual | vars(type(system)())
        if isinstance(usual.get("format"), Float):
            # Further formats are named where they differ from it.
            usual = {name: fields["format"] if isinstance(value, Float) else value for name, value in usual.items()}
        elif "format" in vars(parameters):
            usual = vars(self.parameters(format=parameters.format))
        if "format" in usual:
            words.append(_word("format", fields["format"]))
        for name, value in fields.items():
            if name in ("group", "mantissa", "exponent", "block", "element"):
                words.append(_word(name, value))
            elif name != "format" and value != usual[name]:
                # The format of the sums stands alone; that of an array's memory is told from it.
                beside = isinstance(value, Float) and name == "work" and "accumulator" in fields
                words.append("work_" * beside + _word(name, value))
        name = "_".join(words)
        plain = re.sub(r"\W|__+", "_", name.replace("-", "_"), flags=re.ASCII)
        if len(plain) <= LONGEST and plain.isascii():
            return plain
        digest = hashlib.sha256(json.dumps(parameters.to_json(), sort_keys=True).encode()).hexdigest()[:12]
        return f"{plain[:LONGEST - len(digest) - 1]}_{digest}"

    def header(self, parameters):
        """Return the comment that opens the unit's Verilog."""
        component = self.component(parameters)
        lines = [
            f"{self.name}: {self.summary}",
            f"parameters: {json.dumps(parameters.to_json())}",
            f"latency {component.latency} cycles, interval {component.interval}"
            + (f", recurrence {component.recurrence}" if hasattr(component, "recurrence") else ""),
            f"generated by narrowgauge {__version__}; ports:",
            "  clk  in 1  clock, rising edge",
            "  rst  in 1  synchronous reset, active high",
        ]
        lines += [f"  {line}" for line in verilog.describe_ports(component)]
        return "\n".join(lines)

    def verilog(self, parameters):
        """Return the unit's Verilog text."""
        return verilog.emit(self.component(parameters), self.module_name(parameters), self.header(parameters))

    def vectors(self, parameters, count, seed, *, record=True):
        """Return bench Vectors: random and directed ones, and with `record` one in five recorded."""
        bench = importlib.import_module(f".sim.{self.topic}", __package__)
        kind = self.name.split("-")[-1]
        recorded = count // 5 if record else 0
        parts = [getattr(bench, f"{kind}_random")(parameters, count - recorded, seed)]
        if recorded:
            parts.append(getattr(bench, f"{kind}_recorded")(parameters, recorded, seed))
        arrays = [np.concatenate(each) for each in zip(*parts, strict=True)]
        return getattr(bench, f"{kind}_vectors")(parameters, *arrays)


def _word(name, value):
    """Return what a module name says of a parameter."""
    if isinstance(value, Float):
        word = f"e{value.exponent}m{value.mantissa}b{value.bias}".replace("-", "n")
        special = value.specials if value.specials != "ieee" else ""
        return name_of(value) or word + special + "s" * (value.overflow == "saturate")
    if isinstance(value, Log):
        return SHORT.get(name, "") + (name_of(value) or f"b{value.bits}g{value.gamma}")
    if isinstance(value, Fixed):
        named = next((word for word, element in mx.ELEMENTS.items() if element == value), None)
        return named or f"fixed{value.bits}f{value.fraction}".replace("-", "n")
    if isinstance(value, bool):
        return name
    if isinstance(value, str):
        return value
    return f"{SHORT.get(name, name)}{value}".replace("-", "n")


UNITS = {unit.name: unit for unit in (
    Unit(
        "bfp-converter", "floating point to block floating point, one group per cycle",
        ConverterParameters, BFPConverter, "blockfloat",
    ),
    Unit(
        "bfp-fmac", "dot product of two block-floating-point groups, added to a floating-point sum",
        FMACParameters, BFPFMAC, "blockfloat",
        lambda p: p.group / (1 if p.chunks == "parallel" else p.format.chunks**2),
        lambda p: p.chunk_macs,
    ),
    Unit(
        "float-adder", "sum or difference of two floating-point numbers, rounded once",
        AdderParameters, FloatAdder, "floating",
    ),
    Unit(
        "float-multiplier", "product of two floating-point numbers, rounded once",
        MultiplierParameters, FloatMultiplier, "floating",
    ),
    Unit(
        "float-fma", "fused multiply-add of floating-point numbers, rounded once",
        FMAParameters, FloatFMA, "floating", lambda p: 1,
    ),
    Unit(
        "float-cast", "conversion between two floating-point formats, rounded once",
        CastParameters, FloatCast, "floating",
    ),
    Unit(
        "float-mac", "product of two floating-point numbers, added to a floating-point sum",
        MACParameters, FloatMAC, "floating", lambda p: 1,
    ),
    Unit(
        "mx-converter", "floating point to an OCP microscaling (MX) format, one block per cycle",
        mx.ConverterParameters, MXConverter, "mx",
    ),
    Unit(
        "mx-dot", "dot product of two microscaling (MX) blocks, added to a floating-point sum",
        mx.DotParameters, MXDot, "mx", lambda p: p.lanes,
    ),
    Unit(
        "lns-converter", "floating point to logarithmic numbers under one scale, one vector per cycle",
        logarithmic.ConverterParameters, LNSConverter, "logarithmic",
    ),
    Unit(
        "lns-decoder", "logarithmic numbers to floating point, rounded once, one vector per cycle",
        logarithmic.DecoderParameters, LNSDecoder, "logarithmic",
    ),
    Unit(
        "lns-dot", "dot product of two vectors of logarithmic numbers, summed and rounded to floating point",
        logarithmic.DotParameters, LNSDot, "logarithmic", lambda p: p.lanes,
    ),
    Unit(
        "madam-update", "Madam's update of logarithmic weights by additions to their codes",
        MadamParameters, MadamUpdate, "madam",
    ),
    Unit(
        "sgd-update", "SGD's weight update with momentum: plain, stochastic, with Kahan compensation, or grown",
        SGDParameters, SGDUpdate, "update",
    ),
    Unit(
        "softmax-grad", "errors p - y and loss of a row of logits, one class per cycle and pass",
        SoftmaxParameters, SoftmaxGrad, "softmax",
    ),
    Unit(
        "precision-cyclic", "CPT's cycles: the precision of each training iteration, from a counter",
        CyclicParameters, PrecisionCyclic, "precision",
    ),
    Unit(
        "precision-adaptive", "FAST's choice of 2 or 4 bits for a tensor, from its block-floating-point groups",
        AdaptiveParameters, PrecisionAdaptive, "precision",
    ),
    Unit(
        "array", "matrix products of a number system on a grid of cells, from a memory read down or across",
        ArrayParameters, CellArray, "array", peak,
        lambda p: p.rows * p.columns * (p.system.cell(p.sums).chunk_macs if p.name == "bfp" else 0),
    ),
)}


def find(name):
    """Return the Unit of that name."""
    require(name in UNITS, "unit", name, ", ".join(UNITS))
    return UNITS[name]
