"""Builds a model of a trainer: Verilator, and C++ that knows clock, reset, stalls and host."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...base.files import build_once, cache_folder
from ...golden.core.transfers import Transfers
from .. import runner
from ..sweep import ARGUMENTS as SWEEP
from ..sweep import COMPILE, RUNTIME
from .harness import HARNESS

__all__ = ["MEMORIES", "built", "compiled_model"]

MEMORIES = "memories.json"  # of a build: of each array of its Verilog, bytes of a word and the number of words
# Files of a size for both cores of a machine: the compiler takes minutes for all in one.
ARGUMENTS = [*SWEEP, "--output-split", "20000"]
TRACED, TRACES = ["--trace-vcd"], ["verilated_vcd_c"]
LARGE = 100_000  # bytes of a source that is compiled by itself
# Arrays in the header of Verilator's class, by their path in the Verilog.
ARRAY = re.compile(r"VlUnpacked<(\w+)/\*\d+:0\*/, (\d+)> (\w+__DOT__\w+);")
BYTES = {"CData": 1, "SData": 2, "IData": 4, "QData": 8}


def built(text: str, name: str, transfers: Transfers, traced: bool = False, level: str = "-O1") -> Path:
    """Return the folder of a trainer's model, ``unit.so`` and `MEMORIES`; built once for each text.

    Parameters
    ----------
    text, name : str
        Verilog, and its top module.
    transfers : Transfers
    traced : bool
        Whether it can write waveforms.
    level : str
        The C++ compiler's.
    """
    macros = [f"-DINPUT_WORDS={transfers.input_words}", f"-DOUTPUT_WORDS={transfers.output_words}",
              f"-DLAST={transfers.output_bits + 2}", f"-DTRACED={int(traced)}"]
    return compiled_model(text, name, HARNESS, macros, traced, level)


def compiled_model(text: str, name: str, harness: str, macros: Sequence[str], traced: bool = False,
                   level: str = "-O1") -> Path:
    """Return the folder of a model with a harness of its own, ``unit.so``; built once for each text.

    Parameters
    ----------
    text, name, traced, level
        As for `built`.
    harness : str
        C++. SOURCES stands for Verilator's files, ARRAYS for pointers to the arrays of `MEMORIES`.
    macros : sequence of str
        Options of the compiler.
    """
    arguments = [*ARGUMENTS, *TRACED * traced]
    key = "\0".join([text, harness, level, *macros, *arguments, *COMPILE, *runner.simulator().values()])
    folder = cache_folder("sim") / f"core_{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def compile_into(work: Path) -> None:
        (work / "unit.v").write_text(text)
        with runner.surroundings() as root:
            runner.compiled(work, [[*runner.VERILATE, *arguments, "--top-module", name, "--Mdir", work,
                                    work / "unit.v"]], name)
            arrays = {path.partition("__DOT__")[2].replace("__DOT__", "."): (path, BYTES[kind], int(count))
                      for kind, count, path in ARRAY.findall((work / "Unit___024root.h").read_text())
                      if kind in BYTES}
            (work / MEMORIES).write_text(json.dumps({path: rest for path, (_, *rest) in arrays.items()}))
            sizes = {path: path.stat().st_size for path in work.glob("Unit*.cpp")}
            large = sorted((path for path in sizes if sizes[path] > LARGE), key=sizes.__getitem__, reverse=True)
            small = "\n".join(f'#include "{path.name}"' for path in sorted(set(sizes) - set(large)))
            (work / "harness.cpp").write_text(harness.replace("SOURCES", small).replace(
                "ARRAYS", ", ".join(f"&root.{path}[0]" for path, *_ in arrays.values()) or "nullptr"))
            libraries = [runner.library(root, "sweep", [*COMPILE, "-O1"], RUNTIME) / "libsweep.a"]
            if traced:
                libraries.insert(0, runner.library(root, "traces", [*COMPILE, "-O1"], TRACES) / "libtraces.a")
            headers = ["-include", runner.headers(root, [*COMPILE, level]) / "headers.h"]

            def compile_one(source: Path) -> None:
                # What runs once, before the first cycle, need not be fast.
                options = ["-O0"] if "__Slow" in source.name else [level, *headers]
                runner.compiled(work, [[*COMPILE, *options, *macros, *runner.includes(root), f"-I{work}", "-c", source,
                                        "-o", source.with_suffix(".o")]], name)

            sources = [*large, work / "harness.cpp"]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(compile_one, sources))
            objects = [source.with_suffix(".o") for source in sources]
            runner.compiled(work, [[*COMPILE, "-shared", *objects, *libraries, "-latomic", "-o", work / "unit.so"]],
                            name)
        kept = {"unit.so", "unit.v", MEMORIES, "build.log"}
        for path in work.iterdir():
            if path.name not in kept:
                path.unlink()

    return build_once(folder, compile_into)
