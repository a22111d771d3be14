"""Compiled models of stream units, fed from NumPy arrays: millions of transfers a second, for exhaustive sweeps.

Without stalls, which are the benches' business: one transfer is offered in every cycle, and every output is taken.
"""

import ctypes
import hashlib
import subprocess

import numpy as np

from ..base.files import build_once, cache_folder
from ..golden.formats import require
from ..hw import verilog
from . import runner

__all__ = ["Model"]

ARGUMENTS = ["--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
             "-Wno-fatal", "-Wno-lint", "--output-split", "0", "--prefix", "Unit"]
COMPILE = ["g++", "-std=c++17", "-fPIC", "-fno-semantic-interposition", "-w"]
RUNTIME = ("verilated", "verilated_threads")
LOOP = """\
#include "Unit.h"
{sources}
struct Model {{ VerilatedContext context; Unit unit{{&context}}; }};

// One cycle; returns whether a transfer offered was accepted. The inputs settle while the clock is low. The model's own
// eval() would also look for messages and objects to delete, under locks, which takes longer than the unit itself.
static inline bool cycle(Unit& unit) {{
  unit.clk = 0; Unit___024root___eval(unit.rootp);
  bool ready = unit.i_ready;
  unit.clk = 1; Unit___024root___eval(unit.rootp);
  return ready;
}}

extern "C" Model* create() {{
  Model* model = new Model;
  Unit& unit = model->unit;
  unit.rst = 1; unit.i_valid = 0; unit.i_payload = 0; unit.o_ready = 1;
  {idle}
  unit.eval();  // the first one starts the model
  cycle(unit); cycle(unit);
  unit.rst = 0;
  return model;
}}

extern "C" void destroy(Model* model) {{ delete model; }}

// Offers `count` transfers, then waits `drain` cycles; returns how many outputs came, of which it keeps `room`.
extern "C" long run(Model* model, long count, const uint64_t* inputs, long drain, long room, uint64_t* outputs) {{
  Unit& unit = model->unit;
  long came = 0;
  unit.i_valid = 1;
  for (long sent = 0; sent < count;) {{
    unit.i_payload = inputs[sent];
    sent += cycle(unit);
    if (unit.o_valid) {{ if (came < room) outputs[came] = unit.o_payload; came++; }}
  }}
  unit.i_valid = 0;
  for (long k = 0; k < drain; k++) {{
    cycle(unit);
    if (unit.o_valid) {{ if (came < room) outputs[came] = unit.o_payload; came++; }}
  }}
  return came;
}}

extern "C" int status(Model* model) {{ Unit& unit = model->unit; return {status}; }}
"""


def _runtime(root):
    """Return the library of Verilator's runtime, from its sources in the folder `root`."""
    include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]

    def compile_into(folder):
        objects = [str(folder / f"{each}.o") for each in RUNTIME]
        commands = [[*COMPILE, "-O1", *include, "-c", str(root / "include" / f"{each}.cpp"), "-o", target]
                    for each, target in zip(RUNTIME, objects, strict=True)]
        _log(folder, [*commands, ["ar", "rcs", str(folder / "libsweep.a"), *objects]], "Verilator's runtime")

    name = f"sweep-{runner.simulator()['verilator']}"
    return build_once(cache_folder("sim/runtime") / name, compile_into, alone=True) / "libsweep.a"


def _log(folder, commands, name):
    """Run commands, all that they print into ``build.log``."""
    with open(folder / "build.log", "a") as log:
        for command in commands:
            if subprocess.run(command, stdout=log, stderr=log).returncode:
                raise RuntimeError(f"could not build {name}; see {folder / 'build.log'}")


def _build(text, name, loop, level="-O3"):
    """Return the library of Verilog module `name`, optimised to a level of the compiler's; built once for each text."""
    key = "\0".join([text, loop, level, *ARGUMENTS, *COMPILE, *runner.simulator().values()])
    folder = cache_folder("sim") / f"sweep_{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def compile_into(work):
        (work / "unit.v").write_text(text)
        with runner.surroundings() as root:
            include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
            _log(work, [[*runner.VERILATE, *ARGUMENTS, "--top-module", name, "--Mdir", str(work),
                         str(work / "unit.v")]], name)
            # One compilation, in which the compiler sees everything at once.
            sources = "\n".join(f'#include "{path.name}"' for path in sorted(work.glob("Unit*.cpp")))
            (work / "loop.cpp").write_text(loop.replace("SOURCES", sources))
            _log(work, [[*COMPILE, level, *include, f"-I{work}", "-shared", str(work / "loop.cpp"),
                         str(_runtime(root)), "-pthread", "-latomic", "-o", str(work / "unit.so")]], name)

    return build_once(folder, compile_into, alone=True) / "unit.so"


class Model:
    """A compiled model of one stream unit, in the state after reset.

    Parameters
    ----------
    component : wiring.Component
        Input stream ``i`` and output stream ``o`` with payloads of at most 64 bits, sticky status ports.
    name : str
        Module name.
    text : str, optional
        Verilog of module `name` to compile instead of the component's own.

    Raises
    ------
    ValueError
        A payload is wider than 64 bits.
    RuntimeError
        Verilator or the compiler failed.
    """

    def __init__(self, component, name, text=None):
        ports = verilog.ports_of(component)
        for port, _, width in ports:
            require(width <= 64, f"width of {port}", width, "at most 64 bits")
        known = {"clk", "rst", "i_payload", "i_valid", "i_ready", "o_payload", "o_valid", "o_ready"}
        others = [(port, way) for port, way, _ in ports if port not in known]
        self._status = [port for port, way in others if way == "out"]
        # Two cycles more than the latency: the status is told later than the result.
        self._drain = component.latency + 2
        loop = LOOP.format(
            sources="SOURCES", idle=" ".join(f"unit.{port} = 0;" for port, way in others if way == "in"),
            status=" | ".join(f"unit.{port} << {k}" for k, port in enumerate(self._status)) or "0")
        library = ctypes.CDLL(str(_build(text if text is not None else verilog.emit(component, name), name, loop)))
        words = np.ctypeslib.ndpointer(np.uint64, flags="C_CONTIGUOUS")
        library.create.restype = ctypes.c_void_p
        library.destroy.argtypes = library.status.argtypes = [ctypes.c_void_p]
        library.run.argtypes = [ctypes.c_void_p, ctypes.c_long, words, ctypes.c_long, ctypes.c_long, words]
        library.run.restype = ctypes.c_long
        self._library, self._model = library, library.create()

    def __del__(self):
        if getattr(self, "_model", None):
            self._library.destroy(self._model)

    def run(self, payloads):
        """Offer transfers one after the other, and return all outputs, in order.

        Parameters
        ----------
        payloads : array_like of uint64, shape (n,)

        Returns
        -------
        ndarray of uint64
            One element for each output; there are as many as transfers in a unit that answers each.
        """
        payloads = np.ascontiguousarray(payloads, np.uint64)
        outputs = np.empty(len(payloads), np.uint64)
        came = self._library.run(self._model, len(payloads), payloads, self._drain, len(outputs), outputs)
        if came > len(outputs):
            raise RuntimeError(f"{came} outputs came for {len(payloads)} transfers")
        return outputs[:came]

    def status(self):
        """Return the sticky status ports, as a dict of bools: what has happened since reset."""
        bits = self._library.status(self._model)
        return {port: bool(bits >> k & 1) for k, port in enumerate(self._status)}
