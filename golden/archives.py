"""Arrays from NumPy's .npz files. Sizes are checked before data are read, and nothing in a file is executed."""

import math
import os
import re
import zipfile
import zlib
from typing import IO

import numpy as np

__all__ = ["MAX_BYTES", "read_arrays"]

MAX_BYTES = 1 << 31  # of an array
MAX_HEADER = 4096
# NumPy's own reader evaluates the header, and lets errors of Python's tokenizer through.
HEADER = re.compile(rb"\{'descr': *'([<>|=]?[a-zA-Z]\d{0,4})', *'fortran_order': *(True|False), *"
                    rb"'shape': *\(((?: *\d{1,18} *,)* *(?:\d{1,18} *)?)\) *,? *\} *\n?")


def read_arrays(path: str | os.PathLike, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return arrays of a .npz file by their names; others in the file are left alone.

    Parameters
    ----------
    path : path
    names : tuple of str
        Of the arrays, as `numpy.savez` is given them.

    Returns
    -------
    dict of ndarray
        Of numbers, of any shape without a 0, each of at most `MAX_BYTES`.

    Raises
    ------
    ValueError
        One line, naming the file, the array and what was expected: also for a damaged file.
    """
    try:
        # Opened here: the file of a path that ZipFile refuses would stay open.
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            for name in names:
                if f"{name}.npy" not in members:
                    raise ValueError(f"{path}: has no {name}; expected the arrays {', '.join(names)}")
            return {name: _array(archive, members[f"{name}.npy"], f"{path}: {name}") for name in names}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; expected a .npz file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a whole .npz file ({error or 'it ends early'})") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"{where}: encrypted, or packed in a way of its own; expected what numpy.savez writes")
    with archive.open(member) as file:
        shape, by_columns, dtype = _header(file, where)
        if dtype.kind not in "biuf":
            raise ValueError(f"{where}: dtype {dtype}; expected numbers")
        if min(shape, default=1) < 1:
            raise ValueError(f"{where}: shape {shape}; expected sizes of 1 or more")
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_BYTES:
            raise ValueError(f"{where}: {size} bytes; expected at most {MAX_BYTES}")
        stored = member.file_size - file.tell()
        if stored != size:
            raise ValueError(f"{where}: {stored} bytes; expected {size} for shape {shape} of {dtype}")
        content = file.read(size)  # its checksum is compared at the end
        if len(content) != size:
            raise ValueError(f"{where}: {len(content)} bytes; expected {size} for shape {shape} of {dtype}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return (shape, whether columns lie together, dtype) of a .npy file; the data follow."""
    start = file.read(8)
    size = int.from_bytes(file.read(4 if start[6:7] == b"\2" else 2), "little")
    words = HEADER.fullmatch(file.read(size)) if size <= MAX_HEADER else None
    if start not in (b"\x93NUMPY\1\0", b"\x93NUMPY\2\0") or words is None:
        raise ValueError(f"{where}: no header of an array of numbers; expected what numpy.savez writes")
    descr, by_columns, sizes = words.groups()
    try:
        dtype = np.dtype(descr.decode())
    except TypeError:
        raise ValueError(f"{where}: dtype {descr.decode()}; expected numbers") from None
    return tuple(int(each) for each in sizes.split(b",") if each.strip()), by_columns == b"True", dtype
