"""Files for users: whole or not at all, through what is no plain file, and nothing left behind."""

import errno
import json
import math
import os
import stat
import threading

import pytest
from narrowgauge.base import files

TEXT = "über\n" * 3


def names(folder):
    return sorted(os.listdir(folder))


def test_a_plain_file_is_made_with_the_usual_permissions(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    files.write_whole(tmp_path / "new", TEXT)
    assert (tmp_path / "new").read_bytes() == TEXT.encode()
    assert (tmp_path / "new").stat().st_mode == usual.stat().st_mode
    assert names(tmp_path) == ["new", "usual"]


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "old"
    path.write_text("before")
    path.chmod(0o640)
    files.write_whole(path, TEXT)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (TEXT, 0o640)


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing yet"])
def test_a_link_stays_and_its_target_is_written(tmp_path, there):
    (tmp_path / "folder").mkdir()
    target, middle, link = tmp_path / "folder" / "target", tmp_path / "middle", tmp_path / "link"
    if there:
        target.write_text("before")
    middle.symlink_to("folder/target")
    link.symlink_to(middle)
    files.writable("-o", link)
    files.write_whole(link, TEXT)
    assert (link.is_symlink(), middle.is_symlink(), target.is_symlink()) == (True, True, False)
    assert target.read_text() == TEXT and names(tmp_path / "folder") == ["target"]


def test_a_fifo_is_written_through(tmp_path):
    path, got = tmp_path / "fifo", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    files.writable("-o", path)  # and this check gives the reader no end of file
    files.write_whole(path, TEXT)
    reader.join()
    assert got == [TEXT] and stat.S_ISFIFO(path.stat().st_mode) and names(tmp_path) == ["fifo"]


def test_a_device_is_written_through():
    before = os.stat("/dev/null")
    files.writable("-o", "/dev/null")
    files.write_whole("/dev/null", TEXT)
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode) and (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)


def test_an_open_descriptor_is_written_through_and_appended_to(tmp_path):
    path = tmp_path / "log"
    path.write_text("first\n")
    with open(path, "a") as file:
        for name in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            files.writable("-o", name)
            inode = path.stat().st_ino
            files.write_whole(name, TEXT)
            assert path.stat().st_ino == inode
    assert path.read_text() == "first\n" + 2 * TEXT


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_whole("/dev/full", TEXT)
    assert caught.value.filename == "/dev/full"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught, files.whole(path) as file:
        file.write(b"half")
        full()
    assert caught.value.filename == str(path)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_whole(path, TEXT)
    assert caught.value.filename == str(path)
    assert path.read_text() == "before" and names(tmp_path) == ["file"]


def test_an_interrupt_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), files.whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and names(tmp_path) == ["file"]


@pytest.mark.parametrize(("name", "why"), [
    ("", "the name is empty"), (".", "this is a folder"), ("new/", "this is a folder"), ("folder", "this is a folder"),
    ("missing/file", "the folder '{folder}/missing' is not there"), ("loop", "this link leads nowhere"),
    ("file/below", "the folder '{folder}/file' is not there"), ("x" * 300, "File name too long"),
    ("/proc/self/fd/987", "this is not open"), ("astray", "the folder '{folder}/missing' is not there"),
])
def test_what_cannot_be_written_is_refused_before_any_work(name, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("missing/target")
    before = names(tmp_path)
    with pytest.raises(ValueError) as caught:
        files.writable("--json", name)
    assert str(caught.value) == (f"--json is {name!r}; allowed: a file that can be written "
                                 f"({why.format(folder=tmp_path)})")
    assert names(tmp_path) == before


def test_the_same_file_by_two_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("file")
    assert files.same("file", "./file") and files.same("link", tmp_path / "file")
    assert not files.same("file", "other") and not files.same("/dev/null", "/dev/null")


def test_json_text_has_null_for_what_is_not_finite():
    data = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": True, 3: None}

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(files.json_text(data), parse_constant=refuse) == {
        "a": [1.5, None, [None, {"b": None}]], "c": True, "3": None}


def test_a_folder_is_built_once(tmp_path):
    times = []

    def build(folder):
        times.append(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("made")

    for _ in range(3):
        folder = files.build_once(tmp_path / "entry", build)
        assert (folder / "deep" / "file").read_text() == "made"
    assert len(times) == 1 and times[0].name != "entry"
    assert names(tmp_path) == ["entry", "lock"]


@pytest.mark.parametrize("harm", [
    lambda entry: (entry / "file").write_text("mad"), lambda entry: (entry / "file").unlink(),
    lambda entry: (entry / files.MANIFEST).write_text("{"), lambda entry: (entry / files.MANIFEST).unlink(),
    lambda entry: (entry / files.MANIFEST).write_text("[]"),
], ids=["cut", "lost", "cut manifest", "no manifest", "another manifest"])
def test_what_was_harmed_is_built_again(harm, tmp_path):
    times = []

    def build(folder):
        times.append(folder)
        (folder / "file").write_text("made")

    harm(files.build_once(tmp_path / "entry", build))
    assert (files.build_once(tmp_path / "entry", build) / "file").read_text() == "made"
    assert len(times) == 2 and names(tmp_path) == ["entry", "lock"]


def test_a_build_that_fails_keeps_its_log_and_is_tried_again(tmp_path):
    def fail(folder):
        (folder / "log").write_text("why")
        raise RuntimeError(f"see {folder / 'log'}")

    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"^see {tmp_path}/entry.failed/log$"):
            files.build_once(tmp_path / "entry", fail)
    assert (tmp_path / "entry.failed" / "log").read_text() == "why"
    assert not (tmp_path / "entry").exists()
    files.build_once(tmp_path / "entry", lambda folder: (folder / "file").touch())
    assert names(tmp_path / "entry") == ["file", files.MANIFEST]


def test_a_full_disk_under_a_build_is_named(tmp_path):
    def fill(folder):
        with open("/dev/full", "w") as file:
            file.write("made")

    with pytest.raises(OSError, match="No space left") as caught:
        files.build_once(tmp_path / "entry", fill)
    assert caught.value.filename == str(tmp_path / "entry")


def test_a_build_that_is_interrupted_leaves_nothing(tmp_path):
    def interrupt(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.build_once(tmp_path / "entry", interrupt)
    assert names(tmp_path) == ["lock"]


def test_somebody_else_may_be_first(tmp_path):
    def build(folder):
        files.build_once(tmp_path / "entry", lambda other: (other / "file").write_text("theirs"))
        (folder / "file").write_text("ours")

    assert (files.build_once(tmp_path / "entry", build) / "file").read_text() == "theirs"
    assert names(tmp_path) == ["entry", "lock"]


def test_a_plain_build_is_where_make_can_build(tmp_path):
    cache = tmp_path / "a b: $c"
    cache.mkdir()
    where = []
    files.build_once(cache / "entry", lambda folder: (where.append(folder), (folder / "file").touch()), plain=True)
    assert files.PLAIN.issuperset(str(where[0])) and not where[0].exists()
    assert names(cache / "entry") == ["file", files.MANIFEST] and names(cache) == ["entry", "lock"]


def test_a_cache_that_cannot_be_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NARROWGAUGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"^NARROWGAUGE_CACHE is '.*/file'; allowed: a folder that can be made and "
                                         r"written \(.*/file/sim: Not a directory\)$"):
        files.cache_folder("sim")
