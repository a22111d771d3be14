"""Results in a core: how cells multiply, and how what they give leaves them."""

from collections.abc import Iterator

from ...array import QUEUE, RESULT
from .events import Event, Part, Process
from .latencies import ASKED, BEHIND, CALM, SETTLE, moved
from .products import Mark, Product, Products
from .state import State
from .work import work_of

__all__ = ["leave", "multiply"]


def multiply(products: Products, mark: int | None) -> Process:
    """Let the cells multiply, tile by tile. Tell what was done whenever they are done with instruction `mark`."""
    state, p = products.state, products.state.parameters
    latency = p.system.cell(p.sums).latency
    free = issued = labelled = 0  # when cells can take the next group, and it can wait for them; results so far
    for number in range(1 << 62):
        yield from products.number(number)
        product = products.all[number]
        groups, interval = product.groups, product.interval
        (rows, columns), (down, across) = product.lines, product.tile
        at = max(product.begin + 1, issued)
        if number and products.all[number - 1].key != product.key:
            at = max(at, free + latency + CALM)
        yield at
        product.taken, issued = at, at + 1
        products.loaded.fire()
        macs, ideal = work_of(p, product.job.issue)
        state.macs, state.peak = state.macs + macs, state.peak + ideal
        for top, left in ((top, left) for top in range(0, rows, down) for left in range(0, columns, across)):
            high, wide = min(down, rows - top), min(across, columns - left)
            while len(product.ready[0]) <= top // down or len(product.ready[1]) <= left // across:
                yield products.loaded
            issued = max(issued, product.ready[0][top // down], product.ready[1][left // across])
            sums = high * wide
            pace = max(sums * interval, p.system.recurrence)
            begin, spent = max(issued + 1, free), groups * pace
            state.busy["starved"] += begin - free
            state.busy["array"] += spent
            times = [begin + spent - pace + interval * place for place in range(sums)]
            if not product.job.issue.instruction.open:
                late = yield from _places(products, times, labelled)
                state.busy["blocked"] += late
                spent, labelled = spent + late, labelled + sums
                product.results.append(([when + interval + latency + RESULT for when in times],
                                        [(top + i, left + j) for i in range(high) for j in range(wide)]))
            free = begin + spent
            issued = max(issued + groups * sums, times[-1] - QUEUE * interval + 2)
            if left + wide == columns:
                products.rings[0].gone.append((times[-1] + 2, high * groups))
            yield begin - 1
            products.freed.fire()
            products.made.fire()
        products.rings[1].gone.append((times[-1] + 2, columns * groups))
        products.freed.fire()
        if product.job.issue.number == mark:
            products.marks.append(Mark(free, state.macs, state.peak, dict(state.busy)))


def _places(products: Products, times: list[int], before: int) -> Part:
    """Let results wait until the ones before them on their places have left; return by how much the last is late."""
    waiting, late = products.state.parameters.array.waiting, 0
    for number, when in enumerate(times):
        place = before + number - waiting
        while place >= products.gone + len(products.left):
            yield products.drained
        if place >= 0:
            while products.gone < place:
                products.left.popleft()
                products.gone += 1
            late = max(late, products.left[0] + 2 - when)
        times[number] = when + late
    return late


class _Gather:
    """Results that lie side by side are gathered, and leave in pieces.

    Attributes
    ----------
    accepted, handed, whole : int
        When the latest result was taken, the latest ones were handed on together, and all their pieces had gone.
    """

    def __init__(self, state: State) -> None:
        self.count = max(1, state.parameters.width // state.parameters.columns)
        self.accepted = self.handed = self.whole = 0

    def groups(self, products: Products, product: Product) -> Iterator[Event | tuple[int, int, int]]:
        """Yield (row of cells, first column, columns) of results side by side, and else what they wait for."""
        rows, columns = product.lines
        row = column = 0
        while (row, column) != (rows - 1, columns):
            while not product.results:
                yield products.made
            times, places = product.results.popleft()
            at = 0
            while at < len(times):
                row, column = places[at]
                size = 1
                while size < self.count and at + size < len(places) and places[at + size] == (row, column + size):
                    size += 1
                accepts = self.handed
                for when in times[at:at + size]:
                    products.left.append(max(when - 1, self.accepted))
                    self.accepted = accepts = max(when, accepts)
                    accepts += 1
                at += size
                self.handed = self.accepted + (self.count > 1)
                if size < self.count and column + size < columns and at < len(times):
                    self.handed = max(self.handed, times[at])  # the next one tells that none comes beside
                self.handed = max(self.handed, self.whole)
                if self.count == 1:
                    self.accepted = self.handed
                yield row, column, size
                column += size


def leave(products: Products) -> Process:
    """Let results leave, gathered and piece by piece, to a memory or to the lanes."""
    state, unit, p = products.state, products.state.units["array"], products.state.parameters
    gather = _Gather(state)
    for number in range(1 << 62):
        yield from products.number(number)
        product = products.all[number]
        issue, gemm = product.job.issue, product.job.issue.instruction
        active = max(product.begin + 2, unit.done[-1] + 2 if unit.done else 0)
        end = active
        if gemm.open:
            while product.read is None or product.taken is None:
                yield products.loaded
            end = max(active, product.read, product.taken + 1)
        else:
            for found in gather.groups(products, product):
                if isinstance(found, Event):
                    yield found
                    continue
                row, column, size = found
                first = max(gather.handed + 1, active) + (state.loads(issue) if gemm.update else 0)
                live = min(size * p.columns, product.n - column * p.columns)
                lines = min(p.rows, product.m - row * p.rows)
                place = issue.views["to"].left + column * p.columns
                pieces, behind = lines * state.pieces(live, place, bool(gemm.update)), ASKED + BEHIND
                end = (state.mover.passed(first + behind, pieces) if gemm.update else first + behind + pieces) - 1
                gather.whole = end - behind
                state.results(issue, first + ASKED, gather.whole + ASKED + 1)
                products.drained.fire()
        unit.done.append(end + (moved(p) if gemm.update else 1) + SETTLE)
        unit.changed.fire()
