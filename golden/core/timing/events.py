"""Processes that go on by events and by time, and the ports of memories that they share."""

import heapq
import itertools
import math
from collections.abc import Generator, Iterator

__all__ = ["Clock", "Event", "Port"]


LATE = 256  # cycles that a process may be behind when it asks


class Event:
    """Something that processes wait for: it happens as often as it is told."""

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self._waiting: list[Process] = []

    def fire(self) -> None:
        """Let all go on that wait for it."""
        waiting, self._waiting = self._waiting, []
        for process in waiting:
            self._clock.start(process)

    def wait(self, process: "Process") -> None:
        """Let a process wait for it."""
        self._waiting.append(process)


# A process yields the cycle in which it goes on, or an Event. A part of one returns a cycle.
Process = Iterator[int | Event]
Part = Generator[int | Event, None, int]


class Clock:
    """Lets processes go on in the order of time.

    Attributes
    ----------
    now : int
        The cycle.
    """

    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, Process]] = []
        self._count = itertools.count()

    def start(self, process: Process, when: int = 0) -> None:
        """Let a process go on at a cycle, or now if that is gone."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._count), process))

    def run(self) -> None:
        """Go on until nothing happens any more."""
        while self._heap:
            self.now, _, process = heapq.heappop(self._heap)
            found = next(process, None)
            if isinstance(found, Event):
                found.wait(process)
            elif found is not None:
                self.start(process, found)


class Port:
    """A port of a memory. A unit with priority tells when it uses the port. Another unit is told how long it waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spans: list[tuple[int, int, float]] = []

    def take(self, begin: int, end: int, share: float = 1.0) -> None:
        """Use the port in this share of the cycles from `begin` to `end`."""
        if self._spans and self._spans[-1][1:] == (begin, share):
            self._spans[-1] = self._spans[-1][0], end, share
        else:
            self._spans.append((begin, end, share))

    def passes(self, begin: int, transfers: int) -> int:
        """Let these transfers pass, before those of units without priority; return the cycle behind them."""
        end = self.passed(begin, transfers)
        self.take(begin, end, transfers / (end - begin))
        return end

    def taken(self, at: int) -> float:
        """Return the share of a cycle that units with priority use."""
        return sum(span[2] for span in self._spans if span[0] <= at < span[1])

    def passed(self, begin: int, transfers: int) -> int:
        """Return the cycle behind so many transfers, which begin at a cycle and have what others leave."""
        gone = self._clock.now - LATE
        if self._spans and self._spans[0][1] < gone:
            self._spans = [span for span in self._spans if span[1] >= gone]
        at, left = float(begin), float(transfers)
        while True:
            here = [span for span in self._spans if span[0] <= at < span[1]]
            rate = max(0.0, 1.0 - sum(span[2] for span in here))
            change = min([span[1] for span in here] + [span[0] for span in self._spans if span[0] > at],
                         default=math.inf)
            if (change - at) * rate >= left:
                return math.ceil(at + left / rate - 1e-9)
            at, left = change, left - (change - at) * rate
