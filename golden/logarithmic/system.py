"""Logarithmic numbers as a number system."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...base.checks import require
from ..formats import PRESETS, Float, Log
from ..number_system import Draws, Mode, ScaledSystem
from .numbers import SCALE_BIAS, Logs, narrowed, quantise, scale_of_array
from .products import LNSDotParameters, dots, matmul
from .units import LNSConverterParameters, convert

__all__ = ["LNSSystem"]

LOGS = 1 << 19  # elements of a product's first operand at a time: each takes gamma float64 numbers there


@dataclass(frozen=True)
class LNSSystem(ScaledSystem):
    """Logarithmic numbers as a number system.

    Parameters
    ----------
    format, lanes, accumulation, lsb, constants, fraction
        As in `LNSDotParameters`.
    sum_bits : int, optional
        Its ``accumulator``.
    work : Float
        As in `LNSConverterParameters`.
    accumulator : Float
        What sums are rounded to: the ``result`` of `LNSDotParameters`.
    """

    format: Log = PRESETS["lns8"]
    lanes: int = 16
    accumulation: str = "direct"
    sum_bits: int | None = None
    lsb: int = 0
    constants: int | None = None
    fraction: int = 8
    work: Float = PRESETS["fp32"]
    accumulator: Float = PRESETS["fp32"]

    circuits = "narrowgauge.hw.logarithmic:LNSCircuits"

    def __post_init__(self) -> None:
        self.cell(2)

    def default(self, name: str) -> int:
        """Return the value of a mode that is not given: a scale whose largest number is between 16 and 32."""
        return SCALE_BIAS + 4 - self.format.top // self.format.gamma

    def cell(self, sums: int) -> LNSDotParameters:
        """Return the cell's parameters."""
        return LNSDotParameters(self.format, self.lanes, self.accumulation, self.sum_bits,  # type: ignore[arg-type]
                                self.lsb, self.constants, self.fraction, self.accumulator)  # type: ignore[arg-type]

    @property
    def vector_bits(self) -> int:
        """Bits of a converted vector: its codes."""
        return self.lanes * self.format.bits

    def converter(self, side: int) -> LNSConverterParameters:
        """Return the parameters of a side's converter."""
        return LNSConverterParameters(self.format, self.work, self.lanes)

    def convert(self, side: int, codes: np.ndarray, mode: Mode, draws: Draws
                ) -> tuple[tuple[np.ndarray, ...], bool, bool]:
        """Return the arrays (codes, scales) of vectors, and the sticky status."""
        count = len(codes)
        found, scale, invalid, overflow = convert(self.converter(side), codes, np.full(count, mode["scale"]),
                                                  np.ones(count, bool))
        return (found, scale), bool(invalid.any()), bool(overflow.any())

    def dot(self, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray, last: np.ndarray
            ) -> tuple[np.ndarray, bool, bool]:
        """Return the codes of sums of dot products, and the sticky status."""
        codes, overflow = dots(self.cell(2), a, b, first, last)
        return codes, False, overflow

    def mode(self, kind: str, array: Any) -> Mode:
        """Return the scale of a tensor; weights that are `Logs` have one."""
        return {} if isinstance(array, Logs) else {"scale": scale_of_array(array, self.format, self.work) + SCALE_BIAS}

    def format_of(self, mode: Mode) -> Log:
        """Return the Log of the operands."""
        return self.format

    def describe_sums(self) -> dict:
        """Return the format of results, and the settings of the dot product."""
        settings = self.cell(2).to_json()
        return super().describe_sums() | {name: value for name, value in settings.items()
                                          if name not in ("format", "result")}

    def require_stored(self, stored: Any) -> None:
        """Raise ValueError unless weights are kept in the operands' octaves."""
        wide, narrow = stored.format, self.format
        require(wide.bits - narrow.bits >= 0 and wide.gamma == narrow.gamma << (wide.bits - narrow.bits),
                "stored format", wide, f"{narrow}, or its octaves in more bits")
        require(stored.madam is None or stored.madam.narrow == narrow, "narrow", stored.madam and stored.madam.narrow,
                f"{narrow}, the format of the operands")

    def operand(self, array: Any, axis: int, mode: Mode, side: int, draws: Draws) -> tuple[Any, bool, bool]:
        """Return Logs; weights that are Logs of more bits are brought to the operands', under their scale."""
        if isinstance(array, Logs):
            return array if array.format == self.format else replace(
                array, format=self.format, codes=narrowed(array.codes, array.format, self.format)), False, False
        scale = mode["scale"] - SCALE_BIAS
        logs = quantise(array, self.format, scale)
        # The largest magnitude tells whether any is beyond the scale.
        beyond = scale_of_array(array, self.format, self.work) > scale or not np.isfinite(array).all()
        return logs, logs.invalid, bool(beyond)

    def product(self, a: Any, b: Any) -> tuple[np.ndarray, bool, bool]:
        """Return the product of Logs, a few rows at a time: they do not depend on each other."""
        parameters, overflow = self.cell(2), False
        values = np.empty((len(a.codes), b.codes.shape[1]))
        rows = max(1, LOGS // a.codes.shape[1])
        for start in range(0, len(values), rows):
            part = slice(start, start + rows)
            values[part], over = matmul(replace(a, codes=a.codes[part]), b, parameters)
            overflow |= over
        return values, False, overflow
