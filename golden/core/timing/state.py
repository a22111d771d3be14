"""What the parts of a `Timeline` share: units with their instructions and tokens, memories, and counters."""

from collections import defaultdict, deque
from dataclasses import dataclass, field

from ..instructions import UNITS
from ..parameters import TrainerParameters
from ..sequencer import Issue
from .events import Clock, Event, Port
from .latencies import BEHIND, RATES, READ, update_latency

__all__ = ["Job", "State", "Unit"]


@dataclass(eq=False)
class Job:
    """An instruction of a unit.

    Parameters
    ----------
    issue : Issue
    handed : int
        The cycle in which the unit takes it.
    waits : int
        Waits of the unit that come before it.
    begin : int, optional
        The cycle in which it begins.
    """

    issue: Issue
    handed: int
    waits: int
    begin: int | None = None


class Unit:
    """A unit: its instructions, and the tokens that it waits for and signals.

    Attributes
    ----------
    number : int
        Of its turn with tokens: units have theirs one after the other, a cycle each, since the core's reset.
    jobs : list of Job
    done : list of int
        Cycles in which its instructions were done.
    waits, signals : list
        Each token has the cycle in which it came, and its semaphore. A signal also has the number of instructions
        before it.
    served, given : list of int
        The cycles in which these had their turn.
    changed : Event
    """

    def __init__(self, clock: Clock, number: int) -> None:
        self.number, self.changed = number, Event(clock)
        self.jobs: list[Job] = []
        self.waits: list[tuple[int, int]] = []
        self.signals: list[tuple[int, int, int]] = []
        self.done, self.served, self.given = list[int](), list[int](), list[int]()

    def turn(self, when: int) -> int:
        """Return its first turn with tokens from a cycle on."""
        units = len(UNITS) - 1
        return when + (self.number - when) % units

    @property
    def idle(self) -> bool:
        """Whether it has done all, and waits for no tokens."""
        return (len(self.done), len(self.served), len(self.given)) == (
            len(self.jobs), len(self.waits), len(self.signals))

    @property
    def latest(self) -> int:
        """The cycle in which it last did anything of that."""
        return max(each[-1] if each else 0 for each in (self.done, self.served, self.given))


@dataclass(eq=False)
class State:
    """What the parts of a `Timeline` share.

    Attributes
    ----------
    units : dict of str to Unit
    tokens : dict of int to deque of int
        Of each semaphore, the cycles from which on there is a token.
    reads, writes : dict of str to Port
        Of the memories X, D and W.
    mover : Port
        The way of gradients to the lanes.
    busy : dict of str to int
        Cycles in which a unit worked: of the array, those in which its cells multiplied. And ``starved`` and
        ``blocked``, in which the cells waited for operands, and for room for their results.
    macs, peak : int, float
        Multiply-accumulates, and the cycles they would take at the peak of their precisions.
    before : int
        Cycles from the core's reset to the first instruction.
    rates : tuple, optional
        What parameters were last moved by.
    """

    parameters: TrainerParameters
    clock: Clock = field(default_factory=Clock)
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*UNITS[1:], "starved", "blocked"), 0))
    macs: int = 0
    peak: float = 0.0
    before: int = 0
    rates: tuple | None = None

    def __post_init__(self) -> None:
        self.units = {name: Unit(self.clock, number + 1 - self.before) for number, name in enumerate(UNITS[1:])}
        self.tokens: dict[int, deque[int]] = defaultdict(deque)
        self.signalled, self.mover = Event(self.clock), Port(self.clock)
        shared = self.parameters.merged
        self.reads, self.writes = (
            dict.fromkeys("EXDW", Port(self.clock)) if shared else {name: Port(self.clock) for name in "EXDW"}
            for _ in range(2))

    def loads(self, issue: Issue) -> int:
        """Return the cycles that the rates take by which an instruction moves parameters, if they are others."""
        names = ("seed", "step", "method", "rate", "momentum", "decay")
        rates = tuple(issue.registers[name] for name in names)
        found = RATES if rates != self.rates else 0
        self.rates = rates
        return found

    def pieces(self, live: int, left: int, moves: bool) -> int:
        """Return the cycles that so many results of a row take, in pieces, from a column of their tensor on.

        Results that move parameters go to the lanes, which have columns of their own.
        """
        lanes, width, found = self.parameters.lanes, self.parameters.width, 0
        if not moves:
            return -(-live // width)
        for start in range(0, live, width):
            found += -(-((left + start) % lanes + min(width, live - start)) // lanes)
        return found

    def results(self, issue: Issue, begin: int, end: int) -> None:
        """Tell the memories that results ask for a bias or a mask from one cycle up to another one, and are written."""
        gemm = issue.instruction
        if gemm.biased or gemm.masked:
            self.reads["W" if gemm.biased else "X"].take(begin, end)
        if gemm.update:
            self.moves(begin + BEHIND + 1, end + BEHIND + 1)
        else:
            self.writes[issue.views["to"].memory].take(begin + BEHIND, end + BEHIND)

    def moves(self, begin: int, end: int, biases: bool = False) -> None:
        """Tell the memories that parameters are read from `begin` to `end`, and when they are written."""
        self.reads["W"].take(begin, end)
        written = READ + update_latency(self.parameters, biases)
        self.writes["W"].take(begin + written, end + written)
