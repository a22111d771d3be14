"""What a unit of the core is given: an instruction's tensors, its flags, and the registers as they are then."""

from collections.abc import Callable
from typing import Any

from amaranth import *
from amaranth.lib import data

from ...golden.core.instructions import FIELDS, KINDS, OPERATIONS, UNITS
from ...golden.core.model import OPERANDS
from ...golden.core.report import ERRORS
from ...golden.update import METHODS
from ...golden.words import USE, VECTOR
from ..array.layouts import mode_layout
from .layouts import Geometry, madam_layout, place_layout, shape_layout, size_of

__all__ = ["CODES", "FLAGS", "SHAPED", "SLOTS", "coded_b", "drive_kind", "error_of", "issue_layout", "taken_by",
           "unit_of"]

CODES = {name: code for code, name in enumerate(OPERATIONS)}
FLAGS = ("across_a", "across_b", "biased", "masked", "relu", "update", "continued", "open", "early")
SLOTS = ("a", "b", "to", "other")
SHAPED = ("a_shape", "b_shape", "to_shape")
# Of each operation of a unit: the slot of each of its tensors. A bias and a mask share one.
TAKEN = {
    "gemm": {"a": "a", "b": "b", "to": "to", "bias": "other", "mask": "other"},
    "head": {"a": "a", "labels": "b", "to": "to"}, "sums": {"a": "a", "to": "to"}, "in": {"to": "to"},
    "out": {"a": "a"},
}
FILL = {"fill": {"to": "to"}}  # of a core with windows


def error_of(beginning: str) -> int:
    """Return the code of the error whose text begins so."""
    found = [code for code, text in enumerate(ERRORS) if text.startswith(beginning)]
    assert len(found) == 1, beginning
    return found[0]


def drive_kind(m: Module, kind: Signal, use: Value, choose: Callable[[int, int], Any]) -> None:
    """Drive the kind of an operand of a GEMM: of the kinds of a and b, by its ``use``, the one that is chosen."""
    with m.Switch(use[:3]):
        for slot, kinds in OPERANDS.items():
            with m.Case(slot):
                m.d.comb += kind.eq(choose(*map(KINDS.index, kinds)))


def coded_b(use: Value) -> Value:
    """Return whether operand b of a GEMM consists of weights, by its ``use``."""
    return Cat(use[:3] == slot for slot, kinds in OPERANDS.items() if kinds[1] == "weights").any()


def taken_by(geometry: Geometry) -> dict[str, dict[str, str]]:
    """Return what the units of a core take: see `TAKEN`."""
    return TAKEN | (FILL if geometry.windows else {})


def unit_of(operation: str) -> int:
    """Return the number of the unit that executes an operation, among those that have a bit of their own."""
    return UNITS.index(OPERATIONS[operation].unit) - 1


def issue_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of what a unit is given."""
    p = geometry.parameters
    place = place_layout(geometry)
    part = data.StructLayout({"vector": VECTOR, "pitch": VECTOR})
    return data.StructLayout({
        **dict.fromkeys(SLOTS, place), **dict.fromkeys(FLAGS, 1),
        **(dict.fromkeys(("count_a", "count_b"), 1) if geometry.adaptive else {}),
        **(dict.fromkeys(("a_given", "b_given"), 1) if geometry.scaled else {}),
        **({**dict.fromkeys(SHAPED, shape_layout(geometry)), "fills": 1, "value": geometry.bits}
           if geometry.windows else {}),
        "use": USE, "plane": FIELDS["plane"][0],
        "a_mode": mode_layout(p.system), "b_mode": mode_layout(p.system), "a_part": part, "b_part": part,
        "to_part": data.StructLayout({"vector": VECTOR, "pitch": VECTOR, "lane": FIELDS["lane"][0]}),
        "key": 64, **geometry.rates, "method": range(len(METHODS)), **madam_layout(geometry),
        "scale": geometry.bits, "step": FIELDS["value"][0], "number": size_of(p.program),
    })
