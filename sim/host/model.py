"""A compiled model of a device behind a serial line: bytes in, bytes out."""

import ctypes

import numpy as np

from ..core.build import compiled_model
from .harness import HARNESS

__all__ = ["DeviceModel"]

ROOM = 1 << 16


class _State(ctypes.Structure):
    """What `HARNESS` knows by that name."""

    _fields_ = [("inputs", ctypes.c_void_p), ("outputs", ctypes.c_void_p),
                *((name, ctypes.c_int64) for name in ("count", "sent", "room", "came", "divisor", "cycle"))]


class DeviceModel:
    """A compiled model of a `SerialDevice`, in the state after reset.

    Parameters
    ----------
    name, text : str
        The top module, and its Verilog.
    divisor : int
        Cycles of a bit on the line.

    Raises
    ------
    RuntimeError
        Verilator or the compiler failed.
    """

    def __init__(self, name: str, text: str, divisor: int) -> None:
        self._library = library = ctypes.CDLL(str(compiled_model(text, name, HARNESS, []) / "unit.so"))
        library.create.restype = ctypes.c_void_p
        library.destroy.argtypes = [ctypes.c_void_p]
        library.reset.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        library.run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        self._outputs = np.zeros(ROOM, np.uint8)
        self._inputs = np.zeros(0, np.uint8)
        self._state = _State(outputs=self._outputs.ctypes.data, room=ROOM, divisor=divisor)
        self._model = library.create()
        library.reset(self._model, ctypes.byref(self._state))

    def close(self) -> None:
        """Delete the model."""
        if self._model:
            self._library.destroy(self._model)
            self._model = None

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()

    @property
    def cycles(self) -> int:
        """Cycles so far."""
        return self._state.cycle

    @property
    def waiting(self) -> int:
        """Bytes that have not gone to the device yet."""
        return self._state.count - self._state.sent

    def write(self, data: bytes) -> None:
        """Send bytes, behind those that wait."""
        state = self._state
        self._inputs = np.concatenate([self._inputs[state.sent:], np.frombuffer(data, np.uint8)])
        state.inputs, state.count, state.sent = self._inputs.ctypes.data, len(self._inputs), 0

    def read(self, cycles: int, wanted: int = ROOM) -> bytes:
        """Run so many cycles, or until `wanted` bytes have come, and return the bytes."""
        state = self._state
        self._library.run(self._model, ctypes.byref(state), cycles, min(wanted, ROOM))
        found, state.came = self._outputs[:state.came].tobytes(), 0
        return found
