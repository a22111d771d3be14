"""Saved training runs: npz files of plain arrays, one of which holds the configuration as JSON.

A file is data from somebody, and nothing in it is trusted. It is read without pickle. The size and the header of a
member are compared with the expected ones before the member is read.
"""

import dataclasses
import io
import json
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ...base.checks import require
from ...base.files import special, whole, writable
from ...base.parameters import Named
from ..formats import Float, is_float

__all__ = ["Field", "Reader", "describe", "reading", "require_place", "write"]

KIND, VERSION = "narrowgauge training run", 1
RUN = "run"  # the member of the configuration and the numbers
MOST_TEXT = 1 << 26  # bytes of this member
LONGEST = 200  # characters of a value in a message


@dataclass(frozen=True, eq=False)
class Field:
    """An array of a run's state, and the values that it may have.

    Parameters
    ----------
    array : ndarray
    allowed : Float or (low, high), optional
        The format of all numbers, or their range with both ends. None: every number of the dtype.
    """

    array: np.ndarray
    allowed: Float | tuple[float, float] | None = None

    def holds(self, found: np.ndarray) -> bool:
        """Return whether an array has allowed values alone. A NaN is in every range."""
        if self.allowed is None:
            return True
        if is_float(self.allowed):
            return np.array_equal(self.allowed.round(found.astype(np.float64)), found, equal_nan=True)
        assert isinstance(self.allowed, tuple)
        low, high = self.allowed
        return not bool((found < low).any() or (found > high).any())


def describe(value: Any) -> Any:
    """Return settings as JSON-ready data: of a dataclass its name as ``type``, and its fields."""
    if isinstance(value, Named):
        return value.plain()
    if dataclasses.is_dataclass(value):
        return {"type": type(value).__name__} | {field.name: describe(getattr(value, field.name))
                                                 for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): describe(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [describe(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def _difference(mine: Any, theirs: Any, name: str) -> tuple[str, Any, Any] | None:
    """Return the first value in which two descriptions differ: (name, mine, theirs)."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        # A key of the file may be any text.
        pairs = [(mine.get(key), theirs.get(key), f"{name}.{_shown(key)[1:-1]}".lstrip(".")) for key in mine | theirs]
    elif isinstance(mine, list) and isinstance(theirs, list) and any(isinstance(each, dict) for each in mine):
        if len(mine) != len(theirs):
            return f"number of {name}", len(mine), len(theirs)
        pairs = [(one, other, f"{name}.{k}") for k, (one, other) in enumerate(zip(mine, theirs))]
    else:
        return None if mine == theirs else (name, mine, theirs)
    return next((found for pair in pairs if (found := _difference(*pair))), None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def require_place(name: str, path: str | os.PathLike) -> None:
    """Require a place for a saved run: a plain file that can be written."""
    require(os.fspath(path) != "-" and not special(path), name, os.fspath(path), "a plain file")
    writable(name, path)


def write(path: str | os.PathLike, run: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a saved run, whole or not at all: `run` is JSON-ready."""
    text = json.dumps({"kind": KIND, "version": VERSION, **run}).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in {RUN: np.frombuffer(text, np.uint8), **arrays}.items():
            # Without a date: equal states make equal files.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.external_attr = 0o600 << 16
            archive.writestr(info, _header(array) + array.astype(array.dtype.newbyteorder("<")).tobytes())
    with whole(path) as file:
        file.write(packed.getvalue())


def _header(array: np.ndarray) -> bytes:
    """Return the header of a npy file with an array like this one, little-endian and row by row."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": array.dtype.newbyteorder("<").str, "fortran_order": False, "shape": array.shape})
    return content.getvalue()


class _Refused(ValueError):
    """Has a complete message."""


class Reader:
    """An open file of a saved run: see `reading`.

    Attributes
    ----------
    path : str
    run : dict
        The configuration and the numbers, not checked.
    """

    def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        members = archive.namelist()
        self.require(f"{RUN}.npy" in members and len(set(members)) == len(members), "members")
        size = archive.getinfo(f"{RUN}.npy").file_size
        self.require(size <= MOST_TEXT, f"size of {RUN}")
        # The header of a vector has one length, whatever the length of the vector.
        self.run = json.loads(self.array(RUN, np.empty(size - len(_header(np.empty(0, np.uint8))), np.uint8)).tobytes())
        self.require(self.run["kind"] == KIND, "kind")
        if type(self.run["version"]) is not int or self.run["version"] != VERSION:
            self.refuse(f"version {_shown(self.run['version'])}, where this program knows {VERSION}")

    def refuse(self, why: str) -> NoReturn:
        """Raise ValueError with the path and the reason."""
        raise _Refused(f"{self.path}: {why}; expected a saved run of training")

    def require(self, condition: bool, what: str) -> None:
        """Refuse the file unless a condition holds for a part of it."""
        if not condition:
            self.refuse(f"its {what} cannot be right")

    def require_int(self, name: str, value: Any, low: int, high: int) -> int:
        """Return an integer of the file, which is from `low` to `high`."""
        self.require(type(value) is int and low <= value <= high, name)
        return value

    def require_same(self, mine: Any, theirs: Any) -> None:
        """Refuse the file with the first value in which a configuration differs from that in the file."""
        found = _difference(json.loads(json.dumps(mine)), theirs, "")
        if found:
            name, value, saved = found
            self.differ(name, value, _shown(saved))

    def differ(self, name: str, value: Any, allowed: str, reason: str = "") -> NoReturn:
        """Raise ValueError with a setting of this run, and the value in the file."""
        raise _Refused(f"{name} is {_shown(value)}; allowed: {allowed}, as in {self.path}{reason and ', because '}"
                       f"{reason}")

    def require_members(self, names: Iterable[str]) -> None:
        """Refuse the file if it has other arrays than these."""
        members = set(self._archive.namelist())
        for name in sorted({f"{name}.npy" for name in (RUN, *names)} ^ members):
            self.refuse(f"it has {'a foreign' if name in members else 'no'} {_shown(name)}")

    def array(self, name: str, like: np.ndarray) -> np.ndarray:
        """Return an array of the file that has the dtype and the shape of another one."""
        info, header = self._archive.getinfo(f"{name}.npy"), _header(like)
        if info.compress_type != zipfile.ZIP_STORED:
            self.refuse(f"{name} is compressed")
        content = self._archive.read(info) if info.file_size == len(header) + like.nbytes else b""
        if not content.startswith(header):
            self.refuse(f"{name} is not {like.dtype} of shape {like.shape}")
        found = np.frombuffer(content, like.dtype.newbyteorder("<"), offset=len(header))
        return found.astype(like.dtype).reshape(like.shape)

    def field(self, name: str, like: Field) -> np.ndarray:
        """Return an array of the file that has allowed values alone."""
        found = self.array(name, like.array)
        self.require(like.holds(found), f"values of {name}")
        return found


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[Reader]:
    """Open a saved run. What fails in the block because the file has another structure refuses the file.

    Raises
    ------
    ValueError
        One line, with the path and what is wrong.
    OSError
        The file cannot be opened.
    """
    path = os.fspath(path)
    if special(path):
        raise ValueError(f"{path}: no plain file; expected a saved run of training")
    why: object
    try:
        with zipfile.ZipFile(path) as archive:
            yield Reader(path, archive)
        return
    except _Refused:
        raise
    except OSError as error:
        if error.filename is not None:
            raise
        why = error.strerror
    except (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
            struct.error, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())[:LONGEST] or type(error).__name__
    raise ValueError(f"{path}: damaged, or no saved run of training ({why})")
