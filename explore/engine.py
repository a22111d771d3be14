"""Runs the commands of an exploration, on the cores of this machine or on a Dask cluster."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from ..golden.errors import MissingExtra
from . import commands
from .commands import Store

__all__ = ["RETRIES", "executor", "work"]

RETRIES = 3  # of a command whose worker of the cluster died


@contextmanager
def executor(workers: int | None, scheduler: str | None) -> Iterator[tuple[Executor, int]]:
    """Yield what runs commands, and how many at a time.

    Parameters
    ----------
    workers : int, optional
        Processes here; as many as there are cores when not given.
    scheduler : str, optional
        Address of a Dask scheduler, such as ``tcp://host:8786``. Its workers have narrowgauge installed.
    """
    if scheduler is None:
        count = workers or os.cpu_count() or 1
        pool = ThreadPoolExecutor(count)
        try:
            yield pool, count
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            commands.stop()
            raise
        pool.shutdown()
        return
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtra("explore --scheduler needs distributed: pip install 'narrowgauge[explore]'") from None
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(f"--scheduler is {scheduler!r}; allowed: the address of a Dask scheduler "
                         f"({str(error).splitlines()[0]})") from None
    with client:
        cluster = client.get_executor(retries=RETRIES, pure=False)
        yield cluster, max(sum(client.nthreads().values()), 1)


class _Clock:
    """Tells how far the work is, and how long the rest may take."""

    def __init__(self, say: Callable[[str], None], at_once: int) -> None:
        self.say, self.at_once = say, at_once
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.done = self.failed = self.kept = 0

    def add(self, words: list[str], outcome: dict) -> None:
        self.done += 1
        self.failed += outcome["result"] is None
        self.seconds[words[0]].append(outcome["seconds"])

    def tell(self, waiting: list[list[str]]) -> None:
        known = [second for each in self.seconds.values() for second in each]
        usual = sum(known) / len(known) if known else 0.0
        rest = sum(sum(each) / len(each) if (each := self.seconds.get(words[0])) else usual for words in waiting)
        left = rest / self.at_once
        estimate = f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left" if known else ""
        failed = f", {self.failed} failed" if self.failed else ""
        self.say(f"{self.done + self.kept} of {self.done + self.kept + len(waiting)} commands, {self.kept} of them kept"
                 f"{failed}{estimate}")


def work(first: list[list[str]], store: Store, pool: Executor, at_once: int,
         after: Callable[[list[str], dict], list[list[str]]], say: Callable[[str], None],
         minutes: float | None = None) -> bool:
    """Run commands, and those that follow from their outcomes; keep every outcome at once.

    Parameters
    ----------
    first : list of list of str
        Arguments of the commands known from the start.
    store : Store
    pool, at_once
        As `executor` yields them.
    after : callable
        Takes arguments and outcome of each command, and returns the arguments of further ones.
    say : callable
        Takes a line on how far the work is.
    minutes : float, optional
        After these no more is begun.

    Returns
    -------
    bool
        Whether all was done.
    """
    start, clock = time.monotonic(), _Clock(say, at_once)
    waiting = [list(words) for words in dict.fromkeys(map(tuple, first))]
    seen = set(map(tuple, waiting))
    running: dict[Future, list[str]] = {}

    def take(words: list[str], outcome: dict[str, Any]) -> None:
        for more in after(words, outcome):
            if tuple(more) not in seen:
                seen.add(tuple(more))
                waiting.append(more)

    while waiting or running:
        late = minutes is not None and time.monotonic() - start > 60 * minutes
        while waiting and len(running) < 2 * at_once and not late:
            words = waiting.pop(0)
            kept = store.get(words)
            if kept is not None:
                clock.kept += 1
                take(words, kept)
            else:
                running[pool.submit(commands.run, words)] = words
        clock.tell([*running.values(), *waiting])
        if not running:
            if late:
                return False
            continue
        for future in wait(running, timeout=5, return_when=FIRST_COMPLETED).done:
            words = running.pop(future)
            try:
                outcome = future.result()
            except Exception as error:  # of the cluster: the worker died too often
                outcome = {"result": None, "reason": f"{type(error).__name__}: {error}", "final": False, "seconds": 0.0}
            store.put(words, outcome)
            clock.add(words, outcome)
            take(words, outcome)
    return True
