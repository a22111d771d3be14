"""Tokens between the units of a core: where a program needs them, and whether they order all that must be ordered.

Units work side by side. Each does its own instructions in the order of the program. A semaphore belongs to two units:
one signals, one waits. In the order of the program no wait comes before its signal.

So the units cannot block each other, however short their queues are. Look at the earliest instruction that is not done.
All before it are done, so its token was given. One unit alone takes tokens of a semaphore, so the token is there.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...base.checks import require
from .instructions import SEMAPHORES, UNITS, Instruction
from .parameters import PLANES
from .sequencer import Issue, Sequencer
from .views import blocks_of

__all__ = ["access", "require_ordered", "synchronised"]

Place = tuple[str, int, int]  # memory, plane, block


def access(issue: Issue, side: int) -> tuple[set[Place], set[Place]]:
    """Return what an instruction reads and what it writes."""
    each, views = issue.instruction, issue.views

    def places(name: str, *planes: int) -> set[Place]:
        view = views[name]
        return {(view.memory, plane, block) for plane in planes or (0,) for block in blocks_of(view, side)}

    if each.name in ("signal", "wait", "sync", "settle"):
        return set(), set()
    if each.name in ("in", "fill"):
        return set(), places("to", each.plane)
    if each.name == "out":
        return places("a", each.plane), set()
    read = {place for name in views if name != "to" for place in places(name)}
    moved = each.name == "sums" or each.name == "gemm" and each.update
    written = places("to", *(range(PLANES) if moved else (0,)))
    if each.name == "gemm" and each.open:
        written = set()
    return read | (written if moved else set()), written


@dataclass(frozen=True)
class _Need:
    """An instruction of one unit waits for one of another unit, `distance` iterations before."""

    source: str
    target: str
    after: int
    before: int
    distance: int


def _needs(runs: Sequence[list[Issue]], side: int) -> list[_Need]:
    """Return what must be waited for in the last one of equal iterations."""
    length, last = len(runs[0]), len(runs) - 1
    flat = [(number, issue, *access(issue, side)) for number, issue in enumerate(each for run in runs for each in run)]
    needs = []
    for number, issue, reads, writes in flat[last * length:]:
        found: dict[str, int] = {}
        for earlier, other, other_reads, other_writes in flat[:number]:
            if other.unit != issue.unit and (writes & (other_reads | other_writes) or reads & other_writes):
                found[other.unit] = earlier
        needs += [_Need(unit, issue.unit, earlier % length, number % length, last - earlier // length)
                  for unit, earlier in found.items()]
    kept: list[_Need] = []
    for need in sorted(needs, key=lambda each: (each.before, each.distance)):
        at = need.after - need.distance * length
        same = [each for each in needs if (each.source, each.target) == (need.source, need.target) and each != need]
        now = any(each.before <= need.before and each.after - each.distance * length >= at for each in kept
                  if (each.source, each.target) == (need.source, need.target))
        # A wait in the iteration before counts too.
        if not now and not any(each.after - (each.distance + 1) * length >= at for each in same):
            kept.append(need)
    return kept


def synchronised(state: Sequencer, body: Sequence[Instruction], side: int, repeats: bool
                 ) -> tuple[list[Instruction], list[Instruction], list[Instruction]]:
    """Return the signals before a loop, its body with tokens, and the waits after it.

    Parameters
    ----------
    state : Sequencer
        As it is before the loop; it goes on through some iterations.
    body : sequence of Instruction
    side : int
    repeats : bool
        Whether the body is executed more than once.
    """
    runs = []
    for _ in range(3 if repeats else 1):
        found = [(number, state.issue(number, each)) for number, each in enumerate(body)]
        runs.append([issue for _, issue in found if issue])
    needs = _needs(runs, side)
    semaphores: dict[tuple[str, str, int], int] = {}
    for need in needs:
        semaphores.setdefault((need.source, need.target, need.distance), len(semaphores))
    require(len(semaphores) <= SEMAPHORES, "semaphores", len(semaphores), f"at most {SEMAPHORES}")
    first, last = [], []
    after, before = defaultdict(list), defaultdict(list)
    for need in needs:
        number = semaphores[need.source, need.target, need.distance]
        signal = Instruction("signal", unit=UNITS.index(need.source), semaphore=number)
        wait = Instruction("wait", unit=UNITS.index(need.target), semaphore=number)
        after[runs[0][need.after].number].append(signal)
        before[runs[0][need.before].number].append(wait)
        first += [signal] * need.distance
        last += [wait] * need.distance
    made: list[Instruction] = []
    previous = [issue for issue in runs[-1] if issue.unit == "array"][-1:] if repeats else []
    issues = {issue.number: issue for issue in runs[-1]}
    for number, each in enumerate(body):
        made += before[number]
        if each.name == "gemm":
            reads = access(issues[number], side)[0]
            early = bool(previous) and not any(reads & access(other, side)[1] for other in previous)
            each, previous = Instruction("gemm", **{**each.fields, "early": int(early)}), [issues[number]]
        made.append(each)
        made += after[number]
    return first, made, last


@dataclass
class _Clock:
    """What a unit knows to be done: of each unit, how many instructions."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))

    def join(self, other: dict[str, int]) -> None:
        self.done = {unit: max(count, other[unit]) for unit, count in self.done.items()}


def require_ordered(issues: Iterable[Issue], side: int) -> None:
    """Raise ValueError unless tokens order any two instructions of different units that touch the same blocks.

    A semaphore must belong to two units, and have no token left at a ``sync``. An early GEMM must not read what the
    one before it writes.
    """
    clocks = {unit: _Clock() for unit in UNITS}
    counts = dict.fromkeys(UNITS, 0)
    signals: dict[int, deque[dict[str, int]]] = defaultdict(deque)
    ends: dict[tuple[str, int], str] = {}
    writers: dict[Place, tuple[str, int]] = {}
    readers: dict[Place, dict[str, int]] = defaultdict(dict)
    before: set[Place] = set()
    for issue in issues:
        each, unit = issue.instruction, issue.unit
        if each.name == "sync":
            for clock in clocks.values():
                clock.done = dict(counts)
            require(not any(signals.values()), "tokens left before a sync", sum(map(len, signals.values())), "0")
            ends, before = {}, set()
            continue
        if each.name == "settle":
            for unit in UNITS:
                clocks[unit].done |= {other: count for other, count in counts.items() if other != "in"}
            require(not any(memory == "W" and unit == "in" and count > clocks["array"].done["in"]
                            for (memory, *_), (unit, count) in writers.items()), f"order of instruction {issue.number}",
                    "settle behind nothing of unit in", "behind all that came to memory W")
            before = set()
            continue
        if each.name in ("signal", "wait"):
            owner = ends.setdefault((each.name, each.semaphore), unit)
            require(owner == unit, f"unit that does {each.name} {each.semaphore}", unit, owner)
            if each.name == "signal":
                signals[each.semaphore].append(clocks[unit].done | {unit: counts[unit]})
            else:
                clocks[unit].join(signals[each.semaphore].popleft())
            continue
        reads, writes = access(issue, side)
        known = clocks[unit].done
        for place in reads | writes:
            others = [writers[place]] if place in writers else []
            others += readers[place].items() if place in writes else []
            for other, count in others:
                require(other == unit or known[other] >= count, f"order of instruction {issue.number}, {each.name}",
                        f"behind nothing of unit {other}", f"behind its instruction that has {place}")
        counts[unit] += 1
        if each.name == "gemm":
            require(not (each.early and reads & before), f"flag early of instruction {issue.number}", 1,
                    "0, because it reads what the GEMM before it writes")
            before = writes
        for place in reads:
            readers[place][unit] = counts[unit]
        for place in writes:
            writers[place] = unit, counts[unit]
            readers[place] = {}
