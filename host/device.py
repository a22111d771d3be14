"""A training core behind a transport: registers, words and messages."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..base.checks import require
from ..golden.core import COUNTED, Program, Sequencer
from ..golden.core.transfers import Transfers
from ..golden.host import (
    ERRORS,
    FIELDS,
    IDENTITY,
    INPUT,
    OUTPUT,
    REGISTERS,
    VERSION,
    Answers,
    Configuration,
    Packets,
)
from ..golden.host.packets import check_of
from .transports import BURST, HostError, Transport

__all__ = ["Device"]

POLLED = ("status", "error", "instruction", "room", "waiting", "received", "received_check", "given", "given_check")
CALM = 20  # equal looks at a device, after which it does nothing any more
MASK = 0xFFFFFFFF


class Device:
    """A training core behind a transport. It answers as `CoreModel` does.

    Whatever the device did before, it begins anew. Words are counted and checked on both sides of the line: what is
    lost or changed there ends in a HostError, and never in another result. After a HostError make a new Device.

    Parameters
    ----------
    transport : Transport
    configuration : Configuration
        What the board was built with.
    patience : float
        Seconds in which something has to move while a program runs.
    watch : callable, optional
        Called with the number of words sent so far, now and then.

    Raises
    ------
    HostError
        There is no such device at the other end.
    """

    def __init__(self, transport: Transport, configuration: Configuration, patience: float = 60.0,
                 watch: Callable[[int], object] | None = None) -> None:
        self.transport, self.configuration, self.patience, self.watch = transport, configuration, patience, watch
        self.transfers = Transfers(configuration.trainer)
        self.packets = Packets(configuration)
        self.number = 0  # of the instruction that the core was at, when it was asked last
        self.words = 0   # that were sent and read
        transport.settle()
        self._identify()
        self.reset()

    def _identify(self) -> None:
        found = self.transport.read(0, 5)
        for got, name, wanted in zip(found, REGISTERS, (IDENTITY, VERSION, self.configuration.hash)):
            if name == "version":
                got, wanted = got >> 16, wanted >> 16
            if got != wanted:
                raise HostError(f"{self.transport.name}: {name} is {got:#010x}, and not {wanted:#010x}; is this the "
                                "device that the board's file describes, at its baud rate?")

    def read(self, name: str) -> int:
        """Return what a register tells."""
        return self.transport.read(self._register(name), 1)[0]

    def write(self, name: str, value: int) -> None:
        """Write a register."""
        self.transport.write(self._register(name), [value])

    @staticmethod
    def _register(name: str) -> int:
        require(name in REGISTERS, "register", name, ", ".join(REGISTERS))
        return REGISTERS[name].address

    def reset(self) -> None:
        """Reset the device in whatever it does; what was to be sent is forgotten. The data memory keeps its words."""
        self.write("control", 1 << FIELDS["control"]["reset"].low | 1 << FIELDS["control"]["clear"].low)
        self._sent = self._came = self._sent_check = self._came_check = 0
        self._source: Iterator[np.ndarray] = iter(())
        self._pending = np.zeros(0, np.uint32)
        self._lengths: Iterator[int] = iter(())
        self._answers = Answers(self.transfers, self._length)
        self._look()

    def _length(self) -> int:
        length = next(self._lengths, None)
        if length is None:
            raise HostError(f"{self.transport.name}: a tensor came that the program does not send")
        return length

    def keep(self, examples: np.ndarray) -> None:
        """Give the device the examples that it will be asked for, shape (examples, columns), as far as it has room."""
        self.offer(self.packets.keep(examples))
        while self._more():
            self._exchange()

    def send(self, program: Program, tensors: Iterable[np.ndarray]) -> None:
        """Send a program, and then what it reads: codes of shape (rows, columns). See `next`."""
        self._lengths = (self.transfers.count(issue.views["a"].rows, issue.views["a"].columns)
                         for issue in Sequencer(self.configuration.trainer.side, program).issues()
                         if issue.instruction.name == "out")

        def parts() -> Iterator[np.ndarray]:
            yield self.packets.instructions(program)
            yield from map(self.packets.tensor, tensors)

        self.offer(parts())

    def offer(self, packets: Iterable[np.ndarray]) -> None:
        """Send packets, which are asked for as they are needed."""
        self._source = iter(packets)

    def next(self, synced: bool = False) -> np.ndarray:
        """Return the next message's transfers, shape (n, output_words).

        Raises
        ------
        HostError
            Nothing moved for so long, or the line or the device is at fault.
        """
        require(not synced, "synced", synced, "False: a device does not wait at an instruction")
        since, before = time.monotonic(), None
        while True:
            message = self._message()
            if message is not None:
                return message
            now = self._exchange()
            if now != before:
                since, before = time.monotonic(), now
            elif time.monotonic() - since > self.patience:
                raise HostError(f"{self.transport.name}: nothing has moved for {self.patience:g} s, at instruction "
                                f"{self.number}")

    def _message(self) -> np.ndarray | None:
        try:
            return self._answers.message()
        except ValueError as error:
            raise HostError(f"{self.transport.name}: {error}") from None

    def drain(self) -> None:
        """Send no further packet, and wait until nothing moves any more; messages that come are dropped."""
        self._source = iter(())
        before, calm = None, 0
        while calm < CALM:
            now = self._exchange()
            while self._message() is not None:
                pass
            before, calm = now, calm + 1 if now == before else 0

    def _more(self) -> bool:
        """Return whether there are words to be sent, and ask for the next packet where there are none."""
        if not len(self._pending):
            self._pending = next(self._source, self._pending)
        return len(self._pending) > 0

    def _exchange(self) -> tuple[int, ...]:
        """Look at the device, take what waits, send what there is room for; return where the device is."""
        state = self._look()
        if state["waiting"]:
            self._take(state["waiting"])
        room = state["room"]
        while room and self._more():
            chunk = self._pending[:min(room, BURST)]
            self.transport.write(INPUT, chunk.tolist())
            self._pending, room = self._pending[len(chunk):], room - len(chunk)
            self._sent = self._sent + len(chunk) & MASK
            self._sent_check = check_of(chunk, self._sent_check)
            self.words += len(chunk)
        if self.watch:
            self.watch(self.words)
        return self.number, self._sent, self._came, state["room"]

    def _take(self, count: int) -> None:
        while count:
            some = min(count, BURST)
            words = np.array(self.transport.read(OUTPUT, some), np.uint32)
            count -= some
            self._came, self._came_check = self._came + some & MASK, check_of(words, self._came_check)
            self.words += some
            self._answers.take(words)

    def _look(self) -> dict[str, int]:
        """Return what the registers tell; HostError where words were lost or changed, or the device met an error."""
        state = dict(zip(POLLED, self.transport.read(REGISTERS[POLLED[0]].address, len(POLLED)), strict=True))
        name, code = self.transport.name, state["error"]
        if code:
            raise HostError(f"{name}: the device met an error: {ERRORS[code] if code < len(ERRORS) else code}")
        ours = (self._sent, self._sent_check, self._came, self._came_check)
        theirs = tuple(state[key] for key in ("received", "received_check", "given", "given_check"))
        if ours != theirs:
            raise HostError(f"{name}: words were lost or changed on the line: the device has {theirs[0]} words and "
                            f"gave {theirs[2]}, the host sent {ours[0]} and has {ours[2]}; run it again")
        self.number = state["instruction"]
        return state

    def counters(self) -> dict[str, int]:
        """Return what the core has counted, by the names of `golden.core.COUNTED`."""
        found = {}
        for number, name in enumerate(COUNTED):
            self.write("counter", number)
            low, high = self.transport.read(REGISTERS["count"].address, 2)
            found[name] = low | high << 32
        return found

    def close(self) -> None:
        """End the connection."""
        self.transport.close()

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


assert [REGISTERS[name].address for name in POLLED] == [REGISTERS[POLLED[0]].address + 4 * k
                                                        for k in range(len(POLLED))]
