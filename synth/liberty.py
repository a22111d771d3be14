"""Standard-cell libraries in Liberty: what timing and energy need of their cells.

Read is the table model (`lookup`): areas, capacitances, functions, delays, transitions, setup times, and internal
energies. Units are turned into ns, pF, pJ and V. Cells that are neither gates nor flip-flops are left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.checks import require
from .liberty_text import Group, parse

__all__ = ["Arc", "Cell", "Flipflop", "Library", "Table", "read", "truth_table"]

PREFIXES = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3}
LOADS, SLEWS = "total_output_net_capacitance", ("input_net_transition", "input_transition_time",
                                                "constrained_pin_transition")
EDGES = ("rise", "fall")
MOST_INPUTS = 6  # of a gate: a truth table of 64 bits


@dataclass(frozen=True)
class Table:
    """A table over the load of a net, in pF, and the transition of an input, in ns; outside it lines go on.

    `values` has shape (loads, slews); a table that depends on one of the two has a single row or column.
    """

    loads: np.ndarray
    slews: np.ndarray
    values: np.ndarray

    def at(self, load: float, slew: float) -> float:
        """Return the value by bilinear interpolation."""
        row, weight = _place(self.loads, load)
        column, part = _place(self.slews, slew)
        values = self.values
        low = values[row, column] + part * (values[row, min(column + 1, values.shape[1] - 1)] - values[row, column])
        if not weight:
            return float(low)
        after = min(row + 1, values.shape[0] - 1)
        high = values[after, column] + part * (values[after, min(column + 1, values.shape[1] - 1)]
                                               - values[after, column])
        return float(low + weight * (high - low))


def _place(axis: np.ndarray, value: float) -> tuple[int, float]:
    """Return the interval of an axis that a value is in, or next to, and how far along it is."""
    if len(axis) < 2:
        return 0, 0.0
    at = min(max(int(np.searchsorted(axis, value)) - 1, 0), len(axis) - 2)
    return at, float((value - axis[at]) / (axis[at + 1] - axis[at]))


@dataclass(frozen=True)
class Arc:
    """From an input, or a clock, to an output.

    Attributes
    ----------
    source : str
        The pin it begins at.
    sense : str
        ``positive_unate``, ``negative_unate`` or ``non_unate``.
    delay, transition : tuple of Table
        For a rising and for a falling output.
    """

    source: str
    sense: str
    delay: tuple[Table, Table]
    transition: tuple[Table, Table]


@dataclass(frozen=True)
class Flipflop:
    """A flip-flop that takes one pin at the rising edge of another.

    Attributes
    ----------
    clock, data : str
        Its pins.
    idle : dict of str to int
        Further inputs, such as a reset, and the constant at which each does nothing.
    setup : tuple of Table
        For a rising and for a falling data pin, by the transition of the data; the clock's is the typical one.
    """

    clock: str
    data: str
    idle: dict[str, int]
    setup: tuple[Table, Table]


@dataclass(frozen=True)
class Cell:
    """A gate or a flip-flop.

    Attributes
    ----------
    name : str
    area : float
        In the library's own unit, mostly um2.
    inputs, outputs : tuple of str
    capacitance : dict of str to float
        Of input pins, in pF.
    functions : dict of str to int
        Truth table of each output over `inputs`, the first input lowest; of a flip-flop 0b10 for Q and 0b01 for its
        complement, over its state.
    arcs : dict of str to list of Arc
        By output.
    energy : dict of str to list of (Table, Table)
        Internal energy of a rising and of a falling edge in pJ, by pin.
    flipflop : Flipflop or None
    """

    name: str
    area: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    capacitance: dict[str, float]
    functions: dict[str, int]
    arcs: dict[str, list[Arc]]
    energy: dict[str, list[tuple[Table, Table]]]
    flipflop: Flipflop | None


@dataclass(frozen=True)
class Library:
    """Cells by name, and the supply voltage in V."""

    name: str
    voltage: float
    cells: dict[str, Cell]


def read(text: str, slew: float) -> Library:
    """Return the library of a Liberty file.

    Parameters
    ----------
    text : str
    slew : float
        The clock's transition in ns, at which setup times are taken.
    """
    group = parse(text)
    load = (*group.attributes.get("capacitive_load_unit", ()), "1", "pf")[:2]
    scale = _Scale(_unit(group.attributes.get("time_unit", "1ns")) / 1e-9,
                   _number(load[0]) * _unit(f"1{load[1].lower()}") / 1e-12,
                   _unit(group.attributes.get("voltage_unit", "1V")))
    templates = {name: each for kind in ("lu_table_template", "power_lut_template") for each in group.all(kind)
                 for name in each.names}
    voltage = group.attributes.get("nom_voltage")
    for conditions in group.all("operating_conditions"):
        voltage = conditions.attributes.get("voltage", voltage)
    require(voltage is not None, "liberty", group.names[0], "a library that tells its voltage")
    cells = [_Reader(each, templates, scale, slew).cell() for each in group.all("cell") if each.names]
    found = {cell.name: cell for cell in cells if cell is not None}
    require(any(cell.flipflop for cell in found.values()) and any(not cell.flipflop for cell in found.values()),
            "liberty", group.names[0], "a library with gates, and with flip-flops of the rising edge")
    return Library(group.names[0], _number(voltage) * scale.volt, found)


@dataclass(frozen=True)
class _Scale:
    """The library's units in ns, pF and V."""

    ns: float
    pf: float
    volt: float


def _unit(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)\s*([fpnumk]?)(?:s|[fF]|[vV])", text.strip())
    require(found is not None, "liberty", text, "a unit such as 1ns, 1pf or 1V")
    assert found is not None
    return _number(found[1]) * PREFIXES[found[2]]


class _Reader:
    """Reads one cell."""

    def __init__(self, group: Group, templates: dict[str, Group], scale: _Scale, slew: float) -> None:
        self.group, self.templates, self.scale, self.slew = group, templates, scale, slew
        self.pins = {name: pin for pin in group.all("pin") for name in pin.names}

    def cell(self) -> Cell | None:
        """Return the cell, or None for one of another kind than `Cell` tells of."""
        group, pins = self.group, self.pins
        kinds = {each.kind for each in group.groups}
        inputs = tuple(name for name, pin in pins.items() if pin.attributes.get("direction") == "input")
        outputs = tuple(name for name, pin in pins.items() if pin.attributes.get("direction") == "output")
        functions = {name: pins[name].attributes.get("function") for name in outputs}
        flops = group.all("ff")
        if (not outputs or not all(functions.values()) or kinds & {"latch", "statetable", "ff_bank", "bus"}
                or len(flops) > 1 or any("three_state" in pins[name].attributes for name in outputs)
                or "clock_gating_integrated_cell" in group.attributes
                or group.attributes.get("dont_use") == "true" or (not flops and len(inputs) > MOST_INPUTS)):
            return None
        flipflop = None
        if flops:
            flipflop = self._flipflop(flops[0], inputs)
            if flipflop is None:
                return None
            states = tuple(flops[0].names)
            tables = {name: {states[0]: 0b10, states[1]: 0b01}.get(str(function).strip("() "))
                      for name, function in functions.items()}
            if None in tables.values():
                return None
        else:
            tables = {name: truth_table(str(function), inputs) for name, function in functions.items()}
        return Cell(group.names[0], _number(group.attributes.get("area", 0)), inputs, outputs,
                    {name: self._capacitance(pins[name]) for name in inputs},
                    {name: int(table or 0) for name, table in tables.items()},
                    {name: self._arcs(pins[name]) for name in outputs},
                    {name: self._energies(pin) for name, pin in pins.items()}, flipflop)

    def _capacitance(self, pin: Group) -> float:
        values = [pin.attributes[name] for name in ("rise_capacitance", "fall_capacitance") if name in pin.attributes]
        values = values or [pin.attributes.get("capacitance", 0)]
        return sum(map(_number, values)) / len(values) * self.scale.pf

    def _flipflop(self, ff: Group, inputs: Sequence[str]) -> Flipflop | None:
        """Return what the ff group says; None where it is no plain flip-flop of the rising edge."""
        clock, data = (ff.attributes.get(name, "").strip("() ") for name in ("clocked_on", "next_state"))
        if clock not in inputs or data not in inputs:
            return None
        idle = {}
        for name in set(inputs) - {clock, data}:
            acts = [ff.attributes[each] for each in ("clear", "preset") if each in ff.attributes]
            tables = [truth_table(each, [name]) for each in acts if name in re.findall(r"\w+", each)]
            values = [value for value in (0, 1) if tables and not any(table >> value & 1 for table in tables)]
            if len(values) != 1:
                return None
            idle[name] = values[0]
        setups = [each for each in self.pins[data].all("timing")
                  if each.attributes.get("timing_type") == "setup_rising"]
        if not setups:
            return None
        rise, fall = (self._table(setups[0], f"{edge}_constraint", self.scale.ns) or _constant(0.0) for edge in EDGES)
        return Flipflop(clock, data, idle, (rise, fall))

    def _arcs(self, pin: Group) -> list[Arc]:
        arcs = []
        for timing in pin.all("timing"):
            if timing.attributes.get("timing_type", "combinational") not in ("combinational", "rising_edge"):
                continue
            tables = [[self._table(timing, name.format(edge), self.scale.ns) for edge in EDGES]
                      for name in ("cell_{}", "{}_transition")]
            if any(table is None for row in tables for table in row):
                continue
            delay, transition = ((row[0], row[1]) for row in tables)
            arcs += [Arc(source, timing.attributes.get("timing_sense", "non_unate"), delay,  # type: ignore[arg-type]
                         transition) for source in timing.attributes.get("related_pin", "").split()]  # type: ignore[arg-type]
        return arcs

    def _energies(self, pin: Group) -> list[tuple[Table, Table]]:
        """Return the internal energies of a pin. An energy's unit is that of capacitance times voltage squared."""
        unit, found = self.scale.pf * self.scale.volt**2, []
        for power in pin.all("internal_power"):
            both = self._table(power, "power", unit)
            rise, fall = (self._table(power, f"{edge}_power", unit) or both for edge in EDGES)
            if rise is not None or fall is not None:
                found.append((rise or _constant(0.0), fall or _constant(0.0)))
        return found

    def _table(self, group: Group, kind: str, unit: float) -> Table | None:
        found = group.all(kind)
        if not found:
            return None
        table = found[0]
        template = self.templates.get(table.names[0]) if table.names else None
        known = template.attributes if template else {}
        values = _numbers(table.attributes.get("values", [])) * unit
        names = [known[name] for name in ("variable_1", "variable_2", "variable_3") if name in known]
        indices = known | table.attributes
        axes = [_numbers(indices.get(f"index_{k + 1}", [])) for k in range(len(names))]
        require(values.size == np.prod([len(axis) for axis in axes], dtype=int), "liberty", table.names,
                "tables with as many values as their indices say")
        values = values.reshape([len(axis) for axis in axes])
        # What is neither load nor the transition of the pin is the clock's, or of an output that stands beside.
        if "related_pin_transition" in names:
            at = names.index("related_pin_transition")
            row, part = _place(axes[at] * self.scale.ns, self.slew)
            low, high = (np.take(values, each, axis=at) for each in (row, min(row + 1, len(axes[at]) - 1)))
            values = low + part * (high - low)
            del names[at], axes[at]
        if len(names) == 2 and names[0] in SLEWS:
            names, axes, values = names[::-1], axes[::-1], values.T
        none = np.zeros(1)
        if names == [LOADS]:
            return Table(axes[0] * self.scale.pf, none, values.reshape(-1, 1))
        if len(names) == 1 and names[0] in SLEWS:
            return Table(none, axes[0] * self.scale.ns, values.reshape(1, -1))
        if not names:
            return Table(none, none, values.reshape(1, 1))
        require(len(names) == 2 and names[0] == LOADS and names[1] in SLEWS, "liberty", ", ".join(names),
                "tables over load and transition")
        return Table(axes[0] * self.scale.pf, axes[1] * self.scale.ns, values)


def _numbers(words: Sequence[str]) -> np.ndarray:
    """Return the numbers of strings in which commas or spaces part them."""
    try:
        return np.array([float(number) for word in words for number in word.replace(",", " ").split()])
    except ValueError:
        raise ValueError(f"liberty is {', '.join(words)!r}; allowed: numbers") from None


def _number(words: object) -> float:
    (value,) = _numbers([str(words)])
    return float(value)


def _constant(value: float) -> Table:
    return Table(np.zeros(1), np.zeros(1), np.full((1, 1), value))


WORDS = re.compile(r"\s*([A-Za-z_][\w\[\]]*|[01]|[()!'^&*|+])")


def truth_table(function: str, inputs: Sequence[str]) -> int:
    """Return the truth table of a Liberty function: bit k is the output where input i is bit i of k.

    Raises
    ------
    ValueError
        Something else than names of inputs, 0, 1, and Liberty's operators: ! ' ^ & * | + and a space for and.
    """
    words, at = [], 0
    while at < len(function.rstrip()):
        found = WORDS.match(function, at)
        require(found is not None, "function", function, "Liberty's operators")
        assert found is not None
        words.append(found[1])
        at = found.end()
    size = 1 << len(inputs)
    full = (1 << size) - 1
    columns = {name: sum(1 << k for k in range(size) if k >> index & 1) for index, name in enumerate(inputs)}
    columns |= {"0": 0, "1": full}
    rest = list(reversed(words))

    def atom() -> int:
        require(bool(rest), "function", function, "an operand")
        word = rest.pop()
        if word == "!":
            return full & ~atom()
        if word == "(":
            value = either()
            require(bool(rest) and rest.pop() == ")", "function", function, "brackets that match")
        else:
            require(word in columns, "function", function, f"names of inputs: {', '.join(inputs)}")
            value = columns[word]
        while rest and rest[-1] == "'":
            rest.pop()
            value = full & ~value
        return value

    def differ() -> int:
        value = atom()
        while rest and rest[-1] == "^":
            rest.pop()
            value ^= atom()
        return value

    def both() -> int:
        value = differ()
        while rest and rest[-1] not in (")", "|", "+"):
            if rest[-1] in ("&", "*"):
                rest.pop()
            value &= differ()
        return value

    def either() -> int:
        value = both()
        while rest and rest[-1] in ("|", "+"):
            rest.pop()
            value |= both()
        return value

    table = either()
    require(not rest, "function", function, "brackets that match")
    return table




