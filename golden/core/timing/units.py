"""Head, sums and streams in a core: how long their instructions take."""

import math

from ..sequencer import Issue
from ..views import View
from .events import Part, Port, Process
from .latencies import (
    ADDITION,
    CAST,
    HEAD,
    LABELLED,
    OUTWARD,
    PIECES,
    READ,
    SETTLE,
    moved,
    softmax_latency,
    softmax_places,
)
from .state import State

__all__ = ["follow"]


def follow(state: State, name: str) -> Process:
    """Let a unit do its instructions, one after the other."""
    unit, done = state.units[name], -1
    for number in range(1 << 62):
        while len(unit.jobs) <= number or len(unit.served) < unit.jobs[number].waits:
            yield unit.changed
        job = unit.jobs[number]
        begin = max(job.handed + 1, done + 1)
        if job.waits:
            begin = max(begin, unit.served[job.waits - 1] + 1)
        job.begin = begin
        unit.changed.fire()
        yield begin
        done = (yield from WORK[job.issue.instruction.name](state, job.issue, begin + 1)) + SETTLE
        state.busy[name] += done + 1 - begin
        unit.done.append(done)
        unit.changed.fire()


def _rows(state: State, view: View, plane: int, ports: dict[str, Port], at: int) -> Part:
    """Transfer a tensor; return the cycle behind its last transfer. Each row begins with a transfer of its own.

    Elements of M and labels go one by one, and have a memory of their own.
    """
    single = plane or view.memory == "L"
    count = view.columns if single else -(-view.columns // state.parameters.stream)
    at += LABELLED - 1
    for _ in range(view.rows):
        yield at
        at = at + count if single else ports[view.memory].passed(at, count)
    return at


def _in(state: State, issue: Issue, at: int) -> Part:
    """A tensor comes."""
    return (yield from _rows(state, issue.views["to"], issue.instruction.plane, state.writes, at))


def _out(state: State, issue: Issue, at: int) -> Part:
    """A tensor goes."""
    return (yield from _rows(state, issue.views["a"], issue.instruction.plane, state.reads, at)) + OUTWARD


def _fill(state: State, issue: Issue, at: int) -> Part:
    """A tensor is filled, a piece in a cycle."""
    view = issue.views["to"]
    at += LABELLED - 1
    for _ in range(view.rows):
        yield at
        at = state.writes[view.memory].passed(at, -(-view.columns // state.parameters.width))
    return at


def _head(state: State, issue: Issue, at: int) -> Part:
    """Rows of logits become errors, `head` of them side by side. A row takes a cycle for each logit, and one more."""
    p, view, to = state.parameters, issue.views["a"], issue.views["to"]
    classes, pieces, beside = view.columns, -(-view.columns // p.width), p.head
    emitted = softmax_latency(classes) + 2 * (classes - 1) + HEAD  # from a row's first logit to its last error
    emitted += CAST if p.softmax.format != p.work else 0
    places = softmax_places(p.classes)
    rows = places // classes * beside
    taken, left = list[int](), list[int]()
    asked, written = at + LABELLED - 1, 0
    for first in range(0, view.rows, beside):
        group = range(first, min(first + beside, view.rows))
        # Pieces wait for their logits to be taken.
        before = first - max(1, PIECES // pieces) * beside
        if before >= 0:
            asked = max(asked, taken[before] + classes)
        yield asked
        asked = state.reads[view.memory].passed(asked, pieces * len(group))
        for row in group:
            begin = asked - pieces * len(group) + row - first
            if first:
                begin = max(begin, taken[row - beside] + classes + 1)
            # The softmax unit has places for the exponentials of a few rows.
            if row >= rows:
                begin = max(begin, left[row - rows] - emitted + rows // beside * (classes + 1) - places % classes)
            taken.append(begin)
            left.append(max(begin + emitted, left[row - beside] + classes if first else 0))
        for piece in range(pieces):
            behind = max(0, classes - (piece + 1) * p.width)  # errors that come behind this piece
            for row in group:
                when = max(left[row] - behind, written + 1)
                yield when
                written = state.writes[to.memory].passed(when, 1) - 1
                left[row] = written + behind
    return written + 2


def _sums(state: State, issue: Issue, at: int) -> Part:
    """Rows are added, a span of columns at a time; then the sums move biases."""
    p, view, to = state.parameters, issue.views["a"], issue.views["to"]
    width = 1 << p.width.bit_length() - 1
    period, chunk = max(p.side // width, ADDITION), getattr(p.system, "chunk", None)
    at += 1
    for start in range(0, view.columns, period * width):
        count = min(view.columns - start, period * width)
        pieces = -(-count // width)
        # Pieces come before operands in every other cycle. A row has so many that may wait for one.
        port, share = state.reads[view.memory], pieces / (period + pieces - 1)
        port.take(at, at + view.rows * period, share)
        for _ in range(view.rows):
            yield at
            at += period + math.ceil((pieces - 1) * min(1, max(0, port.taken(at) - share)))
        at += period * (-(-view.rows // chunk) if chunk else 0)  # sums of chunks are added to totals
        at += READ + ADDITION + 2
        yield at
        at += state.loads(issue)
        moves = sum(state.pieces(min(width, count - first), to.left + start + first, True)
                    for first in range(0, count, width))
        moves = count if p.madam else moves  # beside Madam's lanes biases move one by one
        state.mover.take(at, at + moves)
        state.moves(at + 1, at + 1 + moves, biases=True)
        at += moves + 1
    return at - 1 + moved(p, biases=True) - 1


WORK = {"in": _in, "out": _out, "fill": _fill, "head": _head, "sums": _sums}
