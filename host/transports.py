"""Ways to a device's registers: a serial port, a LiteX server, a simulation in this process."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..base.checks import require
from ..golden.errors import MissingExtra

if TYPE_CHECKING:
    from ..sim.host import DeviceModel

__all__ = ["BURST", "HostError", "LiteX", "Serial", "Simulated", "Transport", "connect"]

BURST = 255                # words of a request
WRITE, READ = 1, 2         # commands of uartbone, for addresses that follow each other
REQUEST = 6                # bytes of a request, before its words
FLUSH = REQUEST + 4 * BURST  # bytes after which no request is half done
SETTLE = 0.15              # seconds after which a bridge has forgotten half a request
NEEDS_SERIAL = "a serial port needs pyserial: pip install 'narrowgauge[host]'"
NEEDS_LITEX = "a LiteX server needs litex: pip install 'narrowgauge[litex]'"


class HostError(RuntimeError):
    """The device cannot be reached, or does not answer as it should. One line tells what happened."""


class Transport(ABC):
    """Reads and writes words of a device.

    Attributes
    ----------
    name : str
        For messages.
    """

    name: str

    @abstractmethod
    def read(self, address: int, count: int) -> list[int]:
        """Return words from a byte address on, at most `BURST`; HostError where they do not come."""

    @abstractmethod
    def write(self, address: int, words: Sequence[int]) -> None:
        """Write words from a byte address on, at most `BURST`."""

    @abstractmethod
    def settle(self) -> None:
        """Bring the line to where a new request begins, whatever was on it before."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""


class _Line(Transport):
    """Requests of LiteX's uartbone, over a line of bytes."""

    @abstractmethod
    def _send(self, data: bytes) -> None:
        """Send bytes."""

    @abstractmethod
    def _receive(self, count: int) -> bytes:
        """Return so many bytes, or those that came in time."""

    @abstractmethod
    def _discard(self) -> None:
        """Drop what comes until nothing comes any more."""

    def read(self, address: int, count: int) -> list[int]:
        self._send(_request(READ, address, count))
        found = self._receive(4 * count)
        if len(found) < 4 * count:
            raise HostError(f"{self.name}: {len(found)} of {4 * count} bytes came in answer to a read of "
                            f"{address:#x}; is the board on, and is this its port?")
        return [int.from_bytes(found[at:at + 4], "big") for at in range(0, len(found), 4)]

    def write(self, address: int, words: Sequence[int]) -> None:
        self._send(_request(WRITE, address, len(words)) + b"".join(int(word).to_bytes(4, "big") for word in words))

    def settle(self) -> None:
        # Zeros end a request that is half done, and mean nothing in place of a new one.
        self._send(bytes(FLUSH))
        self._discard()


def _request(command: int, address: int, count: int) -> bytes:
    require(1 <= count <= BURST, "words of a request", count, f"1 to {BURST}")
    return bytes([command, count]) + (address // 4).to_bytes(4, "big")


class Serial(_Line):
    """A serial port.

    Parameters
    ----------
    port : str
        Such as ``/dev/ttyUSB0`` or ``COM3``.
    baud : int
        Bits a second.
    timeout : float
        Seconds to wait for the next byte.
    """

    def __init__(self, port: str, baud: int, timeout: float = 2.0) -> None:
        try:
            import serial
        except ImportError as error:
            raise MissingExtra(NEEDS_SERIAL) from error
        self.name, self._timeout = port, timeout
        self._failures: tuple[Any, ...] = (serial.SerialException, OSError, ValueError)
        try:
            self._port = serial.Serial(port, baud, timeout=timeout, write_timeout=timeout)
        except self._failures as error:
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> HostError:
        text = str(error).strip() or type(error).__name__
        return HostError(f"{self.name}: {text}" if self.name not in text else text)

    def _send(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except self._failures as error:
            raise self._lost(error) from None

    def _receive(self, count: int) -> bytes:
        found = b""
        try:
            while len(found) < count:
                more = self._port.read(min(count - len(found), max(self._port.in_waiting, 1)))
                if not more:
                    break
                found += more
        except self._failures as error:
            raise self._lost(error) from None
        return found

    def _discard(self) -> None:
        end = time.monotonic() + self._timeout
        try:
            self._port.flush()
            quiet = time.monotonic() + SETTLE
            while time.monotonic() < min(quiet, end):
                waiting = self._port.in_waiting
                if waiting:
                    self._port.read(waiting)
                    quiet = time.monotonic() + SETTLE
                time.sleep(SETTLE / 10)
        except self._failures as error:
            raise self._lost(error) from None

    def close(self) -> None:
        self._port.close()


class Simulated(_Line):
    """A device that is simulated in this process.

    Parameters
    ----------
    model : DeviceModel
    patience : int
        Cycles to wait for the next byte.
    """

    def __init__(self, model: "DeviceModel", patience: int = 1_000_000) -> None:
        self.name, self.model, self._patience = "simulation", model, patience

    def _send(self, data: bytes) -> None:
        self.model.write(data)

    def _receive(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            more = self.model.read(self._patience, count - len(found))
            if not more:
                break
            found += more
        return found

    def _discard(self) -> None:
        while self.model.waiting or self.model.read(100_000):
            self.model.read(1000)

    def close(self) -> None:
        self.model.close()


class LiteX(Transport):
    """A LiteX server, which has the board's line: ``litex_server --uart --uart-port PORT``.

    Parameters
    ----------
    host : str
    port : int
    base : int
        The byte address of the device on the server's bus.
    timeout : float
        Seconds to wait for an answer.
    """

    def __init__(self, host: str = "localhost", port: int = 1234, base: int = 0, timeout: float = 2.0) -> None:
        try:
            from litex import RemoteClient
        except ImportError as error:
            raise MissingExtra(NEEDS_LITEX) from error
        self.name, self._base = f"litex:{host}:{port}", base
        self._client = RemoteClient(host, port, csr_csv=None)
        try:
            self._client.open()
            self._client.socket.settimeout(timeout)
        except OSError as error:
            raise HostError(f"{self.name}: {error}; is litex_server running?") from None

    def read(self, address: int, count: int) -> list[int]:
        try:
            found = self._client.read(self._base + address, count)
        except Exception as error:  # its packets are checked by assertions
            raise HostError(f"{self.name}: {str(error) or type(error).__name__}") from None
        return list(found)

    def write(self, address: int, words: Sequence[int]) -> None:
        try:
            self._client.write(self._base + address, [int(word) for word in words])
        except Exception as error:
            raise HostError(f"{self.name}: {str(error) or type(error).__name__}") from None

    def settle(self) -> None:
        pass  # the server's own line is none of ours

    def close(self) -> None:
        self._client.close()


def connect(port: str, baud: int, timeout: float = 2.0) -> Transport:
    """Return the transport that a text names.

    Parameters
    ----------
    port : str
        ``litex:HOST:PORT``, or else the name of a serial port.
    baud : int
    timeout : float
        Seconds to wait for the next byte.
    """
    if port.partition(":")[0] != "litex":
        return Serial(port, baud, timeout)
    host, _, number = port.partition(":")[2].rpartition(":")
    require(bool(host) and number.isdecimal(), "port", port, "litex:HOST:PORT, or a serial port")
    return LiteX(host, int(number), timeout=timeout)
