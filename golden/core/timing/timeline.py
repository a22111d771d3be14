"""When everything in a core happens: its sequencer, tokens, and units, event by event."""

from collections import Counter

from ..instructions import COUNTERS, KINDS, REGISTERS, Instruction
from ..model import OPERANDS
from ..parameters import TrainerParameters
from ..program import Program
from ..sequencer import Issue, Sequencer
from .events import Part, Process
from .latencies import (
    CHECKED,
    CHOICE,
    CHOSEN,
    CLEARED,
    COUNTED,
    CYCLE,
    ENTERED,
    FETCHED,
    FLIPPED,
    GIVEN,
    HALTED,
    IDLE,
    KEYS,
    LOOKED,
    PARTED,
    RECKONED,
    ROOM,
    SETTLED,
    SHAPED,
    TOKENS,
    TOLD,
)
from .products import Products, begin, load
from .results import leave, multiply
from .state import Job, State, Unit
from .units import follow

__all__ = ["Timeline"]


class Timeline:
    """A program in a core: which cycles it takes.

    Parameters
    ----------
    parameters : TrainerParameters
    program : Program
    fitted : bool
        See `Products`.
    serial : bool
        Every instruction waits until all others are done, for comparison.
    mark : int, optional
        See `multiply`.

    Attributes
    ----------
    cycles : dict of str to int
        Of training and of measuring, as a core counts them.
    spent : Counter of int
        Of each instruction, by its number: cycles in which the sequencer is at it.
    state : State
    products : Products
    """

    def __init__(self, parameters: TrainerParameters, program: Program, fitted: bool = False, serial: bool = False,
                 mark: int | None = None) -> None:
        self.parameters, self.program, self.serial = parameters, program, serial
        self.cycles = dict.fromkeys(COUNTERS, 0)
        self.spent: Counter[int] = Counter()
        self.state = state = State(parameters, before=len(program.instructions) + CLEARED)
        self.products = products = Products(state, fitted)
        self._sequencer = Sequencer(parameters.side, program)
        self._key = self._settled = 0  # when the step's random words, and its precisions, are known
        self._chosen: dict[tuple[str, int], int] = {}
        state.clock.start(self._execute())
        for name, unit in state.units.items():
            state.clock.start(self._wait(unit))
            state.clock.start(self._signal(unit))
            if name != "array":
                state.clock.start(follow(state, name))
        state.clock.start(begin(products))
        for sides in ((0,), (1,)) if parameters.converters == 2 else ((0, 1),):
            state.clock.start(load(products, sides))
        state.clock.start(multiply(products, mark))
        state.clock.start(leave(products))
        state.clock.run()

    def _execute(self) -> Process:
        """Execute the program; a cycle is that in which an instruction is fetched."""
        state, at, since = self.state, 0, 0
        counter = COUNTERS[0]
        for number, each, issue in self._sequencer.executed():
            fetched = at
            settles = each.name == "settle"
            if each.name in ("sync", "settle", "halt") or self.serial and issue and each.name not in ("signal", "wait"):
                units = [unit for name, unit in state.units.items() if name != "in" or not settles]
                for unit in units:
                    while not unit.idle:
                        yield unit.changed
                at = max(at, max(unit.latest for unit in units) + IDLE - FETCHED + 1) + SETTLED * settles
            if each.name == "halt":
                at += FETCHED + HALTED
            elif each.name in ("signal", "wait"):
                at = yield from self._token(each, at + FETCHED + GIVEN - 1)
            elif issue and each.name not in ("sync", "settle"):
                at = yield from self._hand(issue, at)
            else:
                at += FETCHED + self._own(each)
            self.spent[number] += at - fetched
            if each.name == "step" and COUNTERS[each.counter] != counter:
                self.cycles[counter] += at - since
                counter, since = COUNTERS[each.counter], at
            if each.name == "step" or each.name == "set" and REGISTERS[each.register] in ("seed", *COUNTERS):
                self._key = at - 1 + KEYS
            if each.name == "step" and each.next:
                self._settled = at - 1 + len(KINDS) * CYCLE
        self.cycles[counter] += at - since

    def _own(self, each: Instruction) -> int:
        """Return the cycles of an instruction of the sequencer's own, beside those of the shortest ones."""
        if each.name == "flip":
            return FLIPPED
        if each.name in ("window", "taps"):
            return SHAPED
        if each.name not in ("tensor", "view"):
            return 0
        down = 0
        if each.name == "tensor":
            down = (each.top + each.rows - 1) // self.parameters.side
        elif self._sequencer.view(each.of).shape:
            return PARTED
        else:
            down = (self._sequencer.view(each.of).top + each.row) // self.parameters.side
        return RECKONED + max(1, down.bit_length())

    def _token(self, each: Instruction, at: int) -> Part:
        """Give a token to its unit; return when the next instruction is fetched."""
        unit = self.state.units[each.unit]
        came: list = unit.waits if each.name == "wait" else unit.signals
        went = unit.served if each.name == "wait" else unit.given
        if len(came) >= TOKENS:
            while len(went) <= len(came) - TOKENS:
                yield unit.changed
            at = max(at, went[len(came) - TOKENS] + ROOM)
        came.append((at, each.semaphore, *([len(unit.jobs)] if each.name == "signal" else [])))
        unit.changed.fire()
        return at + 1

    def _hand(self, issue: Issue, at: int) -> Part:
        """Hand an instruction to its unit; return when the next one is fetched."""
        unit, each = self.state.units[issue.unit], issue.instruction
        at += FETCHED + LOOKED + CHECKED
        if each.name == "gemm":
            at = yield from self._choose(issue, at)
        if each.name in ("gemm", "head", "sums"):
            at = max(at, self._key + 1)
        if unit.jobs:
            while unit.jobs[-1].begin is None:
                yield unit.changed
            at = max(at, unit.jobs[-1].begin + TOLD)
        unit.jobs.append(Job(issue, at, len(unit.waits)))
        unit.changed.fire()
        return at + 1

    def _choose(self, issue: Issue, at: int) -> Part:
        """Wait for precisions that follow a cycle, and for tensors that choose theirs; return when all are known."""
        for kind in OPERANDS[issue.instruction.use & 7]:
            key, step = (kind, issue.instruction.use >> 3), issue.registers["step"]
            if kind in issue.widths:
                at = max(at, self._settled + 1)
            if key in issue.thresholds and self._chosen.get(key) != step:
                self._chosen[key] = step
                products, count = self.products, len(self.state.units["array"].jobs)
                while len(products.all) < count or count and products.all[-1].read is None:
                    yield products.begun if len(products.all) < count else products.loaded
                if count:
                    at = max(at, (products.all[-1].read or 0) + products.delay + CHOSEN)
                at += CHOICE
        return at

    def _wait(self, unit: Unit) -> Process:
        """Let a unit take the tokens that it waits for."""
        state, at = self.state, 0
        for number in range(1 << 62):
            while len(unit.waits) <= number:
                yield unit.changed
            came, semaphore = unit.waits[number]
            tokens = state.tokens[semaphore]
            while not tokens:
                yield state.signalled
            at = unit.turn(max(came + ENTERED, tokens.popleft(), at + 1))
            unit.served.append(at)
            unit.changed.fire()

    def _signal(self, unit: Unit) -> Process:
        """Let a unit give tokens, when it has done what comes before them."""
        state, at = self.state, 0
        for number in range(1 << 62):
            while len(unit.signals) <= number or len(unit.done) < unit.signals[number][2]:
                yield unit.changed
            came, semaphore, before = unit.signals[number]
            at = unit.turn(max(came + ENTERED, at + 1, unit.done[before - 1] + COUNTED if before else 0))
            unit.given.append(at)
            state.tokens[semaphore].append(at + 1)
            state.signalled.fire()
            unit.changed.fire()
