"""A simulated device behind a pseudo terminal."""

import errno
import os
import select
import tty
from collections.abc import Callable

from .model import DeviceModel

__all__ = ["serve"]

CYCLES = 2000  # between two looks at the terminal


def serve(model: DeviceModel, opened: Callable[[str], object], going: Callable[[], bool] = lambda: True) -> None:
    """Simulate a device, and join its line with a new pseudo terminal.

    Parameters
    ----------
    model : DeviceModel
    opened : callable
        Called with the terminal's path, which a host opens as a serial port.
    going : callable, optional
        Called between two looks at the terminal; false ends the simulation.
    """
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        os.set_blocking(master, False)
        opened(os.ttyname(slave))
        pending = b""
        while going():
            if model.waiting < CYCLES:  # bytes on the line: the terminal keeps the others back
                model.write(_read(master))
            pending += model.read(CYCLES)
            pending = _write(master, pending)
    finally:
        os.close(master)
        os.close(slave)


def _read(master: int) -> bytes:
    ready, _, _ = select.select([master], [], [], 0)
    if not ready:
        return b""
    try:
        return os.read(master, 4096)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EAGAIN):  # nobody has it open, or nothing is there
            return b""
        raise


def _write(master: int, data: bytes) -> bytes:
    """Write what the terminal takes, and return the rest."""
    if not data:
        return data
    try:
        return data[os.write(master, data):]
    except BlockingIOError:
        return data
