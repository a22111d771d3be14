"""Compiled models of stream units, fed from NumPy arrays.

`Model` is one unit, at millions of transfers a second, for exhaustive sweeps. It has no stalls: each cycle
offers a transfer, and takes an output. Stalls are the benches' business.

`Batch` is many small units side by side in one model. It runs their vectors as the bench does, with stalls, and costs
a tenth of as many benches.
"""

import ctypes
import hashlib

import numpy as np

from ..base.checks import require
from ..base.files import build_once, cache_folder
from ..hw import verilog
from . import runner

__all__ = ["Batch", "Model"]

ARGUMENTS = ["--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
             "-Wno-fatal", "-Wno-lint", "--output-split", "0", "--prefix", "Unit"]
COMPILE = ["g++", "-std=c++17", "-fPIC", "-fno-semantic-interposition", "-pthread", "-w"]
RUNTIME = ("verilated", "verilated_threads")
PATIENCE, TAIL = 5000, 50  # cycles: see `driver`
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


# The same handshake and checks as in `driver`, of every unit on its own, under one clock.
BATCH = """\
#include "Unit.h"
#include <cstring>
#include <vector>
SOURCES

struct Job {
  const uint8_t* inputs; uint8_t* outputs; int32_t *accepted, *came;
  int64_t count, expected, sent, seen, broken, status; uint64_t dice;
};
struct Ports { uint8_t *i_valid, *i_ready, *o_valid, *o_ready, *status; void *i, *o; size_t in, out; };

static bool rolls(Job& job, int64_t below) {
  job.dice ^= job.dice << 13; job.dice ^= job.dice >> 7; job.dice ^= job.dice << 17;
  return (int64_t)(job.dice >> 40 & 255) < below;
}

// Runs all jobs, until they are done and for `tail` cycles more, or nothing has moved for `patience` cycles.
extern "C" void run(Job* jobs, int64_t idle, int64_t busy, int64_t patience, int64_t tail) {
  VerilatedContext context;
  Unit unit{&context};
  Ports all[] = {
PORTS
  };
  const size_t n = sizeof(all) / sizeof(*all);
  std::vector<std::vector<uint8_t>> held(n);  // outputs that wait to be taken
  unit.rst = 1;
  for (auto& u : all) { *u.i_valid = *u.o_ready = 0; memset(u.i, 0, u.in); }
  for (int k = 0; k < 3; k++) { unit.clk = 0; unit.eval(); unit.clk = 1; unit.eval(); }
  unit.rst = 0;
  int64_t quiet = 0;
  for (int64_t cycle = 0; quiet < patience && tail; cycle++, quiet++) {
    bool done = true;
    for (size_t k = 0; k < n; k++) {
      Ports& u = all[k]; Job& job = jobs[k];
      if (!*u.i_valid && job.sent < job.count && !rolls(job, idle)) {
        memcpy(u.i, job.inputs + job.sent * u.in, u.in);
        *u.i_valid = 1;
      }
      *u.o_ready = !rolls(job, busy);
      done &= job.sent == job.count && job.seen >= job.expected;
    }
    tail -= done;
    unit.clk = 0; unit.eval();
    std::vector<bool> taken(n);
    for (size_t k = 0; k < n; k++) {
      Ports& u = all[k]; Job& job = jobs[k];
      taken[k] = *u.i_valid && *u.i_ready;
      if (taken[k]) { job.accepted[job.sent++] = cycle; quiet = 0; }
      const uint8_t* at = (const uint8_t*)u.o;
      if (held[k].size() && !*u.o_valid) job.broken |= 2;
      if (held[k].size() && *u.o_valid && memcmp(held[k].data(), at, u.out)) job.broken |= 1;
      held[k].clear();
      if (*u.o_valid && !*u.o_ready) held[k].assign(at, at + u.out);
      if (!*u.o_valid || !*u.o_ready) continue;
      quiet = 0;
      if (job.seen < job.expected) { memcpy(job.outputs + job.seen * u.out, at, u.out); job.came[job.seen] = cycle; }
      else job.broken |= 4;
      job.seen++;
    }
    unit.clk = 1; unit.eval();
    for (size_t k = 0; k < n; k++) if (taken[k]) *all[k].i_valid = 0;
  }
  for (size_t k = 0; k < n; k++) jobs[k].status = *all[k].status;
}
"""
BROKEN = ("a waiting output changed", "a waiting output was withdrawn", "an output came beyond the last expected one")
STREAMS = ("i_payload", "i_valid", "i_ready", "o_payload", "o_valid", "o_ready")


def _build(text, name, loop, level="-O3"):
    """Return the library of Verilog module `name`, optimised to a level of the compiler's; built once for each text."""
    key = "\0".join([text, loop, level, *ARGUMENTS, *COMPILE, *runner.simulator().values()])
    folder = cache_folder("sim") / f"sweep_{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def compile_into(work):
        (work / "unit.v").write_text(text)
        with runner.surroundings() as root:
            runner.compiled(work, [[*runner.VERILATE, *ARGUMENTS, "--top-module", name, "--Mdir", work,
                                    work / "unit.v"]], name)
            # One compilation, in which the compiler sees everything at once.
            sources = "\n".join(f'#include "{path.name}"' for path in sorted(work.glob("Unit*.cpp")))
            (work / "loop.cpp").write_text(loop.replace("SOURCES", sources))
            runtime = runner.library(root, "sweep", [*COMPILE, "-O1"], RUNTIME) / "libsweep.a"
            # Of a quick build, Verilator's headers are two thirds.
            headers = ["-include", runner.headers(root, [*COMPILE, level]) / "headers.h"] * (level == runner.QUICK)
            runner.compiled(work, [[*COMPILE, level, *headers, *runner.includes(root), f"-I{work}", "-shared",
                                    work / "loop.cpp", runtime, "-latomic", "-o", work / "unit.so"]], name)

    return build_once(folder, compile_into) / "unit.so"


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
            One element for each output. A unit that answers every transfer has as many outputs as transfers.
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


class _Job(ctypes.Structure):
    """What `BATCH` knows by that name."""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("inputs", "outputs", "accepted", "came")),
                *((name, ctypes.c_int64) for name in ("count", "expected", "sent", "seen", "broken", "status")),
                ("dice", ctypes.c_uint64)]


def _bytes_of(width):
    """Return the bytes of the type in which Verilator keeps so many bits."""
    return next((size for size in (1, 2, 4, 8) if width <= 8 * size), -(-width // 32) * 4)


class Batch:
    """A compiled model of several stream units side by side, for the vectors of each of them.

    Parameters
    ----------
    units : sequence of tuple (wiring.Component, str, str)
        Components of at most 8 status ports, their module names, which differ, and their Verilog.

    Raises
    ------
    RuntimeError
        Verilator or the compiler failed.
    """

    def __init__(self, units):
        ports, lines, texts, pointers, self._units = ["clk", "rst"], ["  input clk, rst;"], [], [], []
        for k, (component, name, text) in enumerate(units):
            own = verilog.ports_of(component)
            status = [port for port, way, _ in own if way == "out" and port not in STREAMS]
            wires = {"clk": "clk", "rst": "rst"}
            for port, way, width in own[2:]:
                if port in STREAMS:
                    ports.append(f"u{k}_{port}")
                    lines.append(f"  {way}put [{width - 1}:0] u{k}_{port};")
                    wires[port] = ports[-1]
                else:
                    wires[port] = f"u{k}_status[{status.index(port)}]" if way == "out" else f"{width}'d0"
            ports.append(f"u{k}_status")
            lines += [f"  output [7:0] u{k}_status;", f"  assign u{k}_status[7:{len(status)}] = 0;",
                      f"  {name} u{k} ({', '.join(f'.{port}({wire})' for port, wire in wires.items())});"]
            texts.append(text)
            where = [f"&unit.u{k}_{port}" for port in ("i_valid", "i_ready", "o_valid", "o_ready", "status",
                                                       "i_payload", "o_payload")]
            sizes = [_bytes_of(next(width for port, _, width in own if port == name))
                     for name in ("i_payload", "o_payload")]
            pointers.append(f"    {{{', '.join(where + list(map(str, sizes)))}}},")
            self._units.append((sizes, status))
        text = "".join([*texts, f"module batch({', '.join(ports)});\n", "\n".join(lines), "\nendmodule\n"])
        # Compiling takes longer than running.
        self._library = ctypes.CDLL(str(_build(text, "batch", BATCH.replace("PORTS", "\n".join(pointers)),
                                           runner.QUICK)))
        self._library.run.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 4]
        self._library.run.restype = None

    def run(self, vectors, *, seed=1, idle=0.3, busy=0.3):
        """Run the vectors of each unit, from reset, and return an Outcome for each.

        Parameters
        ----------
        vectors : sequence of Vectors
        seed : int
            Of the gaps.
        idle, busy : float
            Probability that a cycle offers no input, or takes no output.

        Returns
        -------
        list of Outcome
            ``spans`` has each accepted transfer: its cycle, and the cycle of its last output, or None. Only the first
            wrong output is described.
        """
        jobs, arrays = (_Job * len(vectors))(), []
        for k, (each, ((width, room), _)) in enumerate(zip(vectors, self._units, strict=True)):
            inputs = b"".join(payload.to_bytes(width, "little") for payload in each.inputs)
            arrays.append((np.frombuffer(inputs, np.uint8), np.zeros(len(each.outputs) * room, np.uint8),
                           np.zeros(len(each.inputs), np.int32), np.zeros(len(each.outputs), np.int32)))
            jobs[k] = _Job(*(array.ctypes.data for array in arrays[-1]), len(each.inputs), len(each.outputs),
                           dice=seed * 1_000_003 + k + 1)
        self._library.run(ctypes.addressof(jobs), round(256 * idle), round(256 * busy), PATIENCE, TAIL)
        return [self._outcome(*each) for each in zip(vectors, jobs, arrays, self._units, strict=True)]

    @staticmethod
    def _outcome(vectors, job, arrays, unit):
        (_, room), ports = unit
        _, outputs, accepted, came = arrays
        seen = min(job.seen, len(vectors.outputs))
        got = [int.from_bytes(outputs[room * k:room * (k + 1)].tobytes(), "little") for k in range(seen)]
        wrong = [k for k in range(seen) if got[k] != vectors.outputs[k]]
        report = [f"output {k}, completed by input {int(vectors.origin[k])}: {vectors.describe(int(vectors.origin[k]))}"
                  f"\n  expected {vectors.show(vectors.outputs[k])}\n  got      {vectors.show(got[k])}"
                  for k in wrong[:1]]
        broken = [text for bit, text in enumerate(BROKEN) if job.broken >> bit & 1]
        if job.sent < len(vectors.inputs) or seen < len(vectors.outputs):
            broken.append(f"stuck after {job.sent} of {len(vectors.inputs)} inputs and {seen} of "
                          f"{len(vectors.outputs)} outputs")
        found = {port: job.status >> bit & 1 for bit, port in enumerate(ports)}
        broken += [f"status {port} is {found[port]}, expected {value}" for port, value in vectors.status.items()
                   if found[port] != value]
        spans = {k: (int(accepted[k]), None) for k in range(job.sent)}
        early = [k for k in range(seen) if vectors.origin[k] >= job.sent or came[k] < accepted[vectors.origin[k]]]
        broken += [f"output {k} came before its input" for k in early[:1]]
        delays = []
        for k in range(seen if not early else 0):
            start = spans[int(vectors.origin[k])][0]
            spans[int(vectors.origin[k])] = start, int(came[k])
            delays.append(int(came[k]) - start)
        return runner.Outcome(job.sent, len(wrong) + len(broken), int(max(came, default=0)), min(delays, default=None),
                              spans, report + broken)
