"""Files for users, written whole or not at all, and a cache of builds."""

import fcntl
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from .checks import require

__all__ = ["build_once", "cache_folder", "json_text", "plain_folder", "same", "special", "unchanged", "whole",
           "writable", "writable_folder", "write_whole"]

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+,./-")  # for make and its shells
SCRATCH = ".narrowgauge-"  # prefix of unfinished files and folders
MANIFEST = "manifest.json"


def _target(path: str | os.PathLike) -> Path:
    """Follow links from `path` to their end, but not into an open descriptor under /dev or /proc."""
    path = Path(path)
    for _ in range(40):
        folder = Path(os.path.realpath(path.parent))
        path = folder / path.name
        if folder == Path("/dev") or Path("/proc") in folder.parents or not path.is_symlink():
            break
        path = folder / os.readlink(path)
    return path


def special(path: str | os.PathLike) -> bool:
    """Return whether `path` leads to a device, a FIFO or an open descriptor, which is written through."""
    target = _target(path)
    if Path("/proc") in target.parents or (target.parent == Path("/dev") and target.is_symlink()):
        return True
    return target.exists() and not target.is_file() and not target.is_dir()


def same(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Return whether two paths lead to the same plain file, existing or not."""
    return not special(one) and _target(one) == _target(other)


def writable(name: str, path: str | os.PathLike) -> None:
    """Require that a file can be written to `path`, before any work.

    Parameters
    ----------
    name : str
        Of the option or the parameter, for the message.
    path : path
        Of a plain file (existing or not), a link, a device, a FIFO or an open descriptor.

    Raises
    ------
    ValueError
        One line with the path and the reason.
    """
    def refuse(why: object) -> NoReturn:
        raise ValueError(f"{name} is {os.fspath(path)!r}; allowed: a file that can be written ({why})")

    if os.fspath(path) == "":
        refuse("the name is empty")
    try:
        target = _target(path)
        mode = target.stat().st_mode if target.exists() else None
        if os.fspath(path).endswith("/") or (mode and stat.S_ISDIR(mode)):
            refuse("this is a folder")
        if mode and stat.S_ISSOCK(mode):
            refuse("this is a socket")
        if target.is_symlink() and mode is None:
            refuse("this link leads nowhere")
        if mode and not os.access(target, os.W_OK):
            refuse("permission denied")
        if special(path):
            if mode is None:
                refuse("this is not open")
            return
        if not target.parent.is_dir():
            refuse(f"the folder {str(target.parent)!r} is not there")
        # Making a file is the only sure test of permissions, quotas and read-only disks. The file is gone at once.
        with tempfile.TemporaryFile(dir=target.parent, prefix=SCRATCH):
            pass
    except OSError as error:
        refuse(error.strerror)


def writable_folder(name: str, folder: str | os.PathLike, files: Iterable[str]) -> None:
    """Make a folder if need be, and require that files can be written into it, before any work; see `writable`."""
    require(os.fspath(folder) != "", name, folder, "a folder")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        require(False, name, os.fspath(folder), f"a folder that can be made ({error.strerror})")
    for file in files:
        writable(name, Path(folder, file))


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the block ends without an error.

    A device, a FIFO or an open descriptor is written through. A link stays, and its target is replaced. A plain file
    keeps its permissions. After an error the plain file is unchanged, and no scratch file is left.

    Raises
    ------
    OSError
        Its ``filename`` is `path`, always.
    """
    try:
        target = _target(path)
        if special(path):
            # Append: a log that the shell opened for appending keeps its lines.
            with open(os.open(target, os.O_WRONLY | os.O_APPEND), "wb") as file:
                yield file
            return
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=SCRATCH)
        try:
            with open(handle, "wb") as file:
                yield file
            os.chmod(scratch, stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask())
            os.replace(scratch, target)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        # What write() or close() raise names no file, and mkstemp names the scratch file.
        error.filename, error.filename2 = os.fspath(path), None
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write text in UTF-8 as `whole` does."""
    with whole(path) as file:
        file.write(text.encode())


def json_text(data: object) -> str:
    """Return data as JSON text, a float that is not finite as null: JSON has no NaN and no Infinity."""
    return json.dumps(_finite(data), indent=2, allow_nan=False) + "\n"


def _finite(data: object) -> object:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def cache_folder(kind: str) -> Path:
    """Return (and make) the folder for `kind`: ``$NARROWGAUGE_CACHE/kind``, or ``build/kind`` here."""
    root = os.environ.get("NARROWGAUGE_CACHE") or "build"
    folder = Path(root).resolve() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"NARROWGAUGE_CACHE is {root!r}; allowed: a folder that can be made and written "
                         f"({folder}: {error.strerror})") from None
    return folder


def plain_folder(*wanted: Path) -> Path:
    """Return a folder for GNU make to build in: the first of `wanted` and the temporary ones with a plain path.

    GNU make cannot build where the path has a space.
    """
    folders = [*wanted, Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    for folder in folders:
        if PLAIN.issuperset(str(folder.resolve())) and os.access(folder, os.W_OK | os.X_OK):
            return folder.resolve()
    raise ValueError(f"TMPDIR is {tempfile.gettempdir()!r}; allowed: a folder whose path has only letters, digits and "
                     "_+,./-, as GNU make builds in no other")


def build_once(folder: Path, build: Callable[[Path], object], *, plain: bool = False) -> Path:
    """Return `folder`, filled by `build` unless it is there, whole and unchanged.

    The folder is filled under another name, and moved into place with the hashes of its files. No reader sees a
    half-made folder. A folder with a cut or changed file is made again.

    Parameters
    ----------
    folder : Path
        In a cache folder. The name holds a hash of the inputs.
    build : callable
        Takes the folder to be filled.
    plain : bool
        Whether `build` needs a folder that make can build in.

    Raises
    ------
    Exception
        As `build` raised it. The unfinished folder, with its logs, is kept under the name with ``.failed``. The
        message of a RuntimeError names the kept folder.
    """
    lock = folder.parent / "lock"
    with _locked(lock):
        if unchanged(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    # Others build meanwhile, even the same: whoever is first has made it.
    work = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=plain_folder(folder.parent) if plain else folder.parent))
    try:
        build(work)
        hashes = {str(path.relative_to(work)): _hash(path) for path in sorted(work.rglob("*")) if path.is_file()}
        (work / MANIFEST).write_text(json.dumps(hashes, indent=1))
        work.chmod(0o777 & ~_umask())
    except Exception as error:
        failed = folder.with_name(folder.name + ".failed")
        shutil.rmtree(failed, ignore_errors=True)
        shutil.move(work, failed)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(folder)  # such as a full disk
        if isinstance(error, RuntimeError):
            raise type(error)(str(error).replace(str(work), str(failed))) from error
        raise
    except BaseException:
        shutil.rmtree(work)
        raise
    if work.parent != folder.parent:
        # Another file system may be there: copy first, and then move in one step.
        near = tempfile.mkdtemp(prefix=SCRATCH, dir=folder.parent)
        work = Path(shutil.move(work, near))
    # Under the lock again: nobody takes a folder that has just come for a harmed one.
    with _locked(lock):
        try:
            work.rename(folder)
        except OSError:
            if not unchanged(folder):
                raise
            shutil.rmtree(work)  # somebody else was first
        if work.parent != folder.parent:
            work.parent.rmdir()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unchanged(folder: Path) -> bool:
    """Return whether a folder has all the files that `build_once` left in it, as they were."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text())
        return bool(hashes) and all(_hash(folder / name) == expected for name, expected in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False
