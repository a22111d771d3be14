"""Switching activity of a mapped netlist: simulation of 64 streams side by side, with glitches or without."""

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base.environment import unsteered
from ..base.files import build_once, cache_folder
from ..golden.errors import MissingExtra
from .liberty import MOST_INPUTS
from .mapped import Netlist
from .timing import Timing

__all__ = ["RESET", "STREAMS", "Activity", "Stimulus", "simulate"]

STREAMS = 64  # one for each bit of a word
RESET = 4  # cycles
COMPILE = ["g++", "-std=c++17", "-O2", "-fPIC", "-shared"]
SIMULATOR = r"""
// Simulates a netlist of gates and flip-flops for 64 streams side by side: bit k of a word belongs to stream k.
// Counts how often each net changes. `wait` gives gates their delays, and so shows glitches; else gates take no time.
#include <cstddef>
#include <cstdint>
#include <vector>

typedef uint64_t word;

struct Gate { int32_t output, count, inputs[6], delay[2]; word table; };  // delay of a rise, of a fall, in ps
struct Flop { int32_t data, output, inverted, delay[2]; };
struct Stream { int64_t count, sent, expected, seen, wrong; };
struct Event { int32_t time; word lanes; };

static const int LANES = 64;

// The output for a truth table, whose bit k is the output where input i is bit i of k.
static word evaluate(const Gate& gate, const word* nets) {
  word values[64];
  const int size = 1 << gate.count;
  for (int k = 0; k < size; k++) values[k] = (gate.table >> k & 1) ? ~(word)0 : 0;
  int half = size;
  for (int i = gate.count - 1; i >= 0; i--) {
    half >>= 1;
    const word select = nets[gate.inputs[i]];
    for (int k = 0; k < half; k++) values[k] = (values[k] & ~select) | (values[k + half] & select);
  }
  return values[0];
}

struct Simulator {
  const Gate* gates; int gate_count; const Flop* flops; int flop_count; int net_count;
  std::vector<word> nets, sampled;
  std::vector<uint64_t> toggles;
  bool counting = false;
  // Of the run with delays: drivers and users of nets, events by time, what waits at each net.
  std::vector<std::vector<int>> users, wheel;
  std::vector<std::vector<Event>> events;
  std::vector<word> pending;
  std::vector<int> touched;
  std::vector<bool> marked;

  void change(int net, word lanes) {
    nets[net] ^= lanes;
    if (counting) toggles[net] += __builtin_popcountll(lanes);
  }
  void settle() {
    for (int g = 0; g < gate_count; g++) {
      const word lanes = evaluate(gates[g], nets.data()) ^ nets[gates[g].output];
      if (lanes) change(gates[g].output, lanes);
    }
  }
  void schedule(int net, int time, word lanes) {
    if (!lanes) return;
    if ((int)wheel.size() <= time) wheel.resize(time + 1);
    wheel[time].push_back(net);
    events[net].push_back({time, lanes});
  }
  // What a net's driver says now. A change that waits and is no longer wanted is taken back: delays are inertial.
  void want(int net, word value, const int32_t* delay, int now) {
    const word differ = value ^ nets[net], cancel = pending[net] & ~differ, fresh = differ & ~pending[net];
    if (cancel) for (Event& event : events[net]) event.lanes &= ~cancel;
    pending[net] = differ;
    schedule(net, now + delay[0], fresh & value);
    schedule(net, now + delay[1], fresh & ~value);
  }
  void touch(int net) {
    for (int g : users[net]) if (!marked[g]) { marked[g] = true; touched.push_back(g); }
  }
  void run_events() {
    for (int now = 0; now < (int)wheel.size(); now++) {
      if (wheel[now].empty()) continue;
      for (int net : wheel[now]) {
        word lanes = 0;
        std::vector<Event>& waiting = events[net];
        for (std::size_t k = 0; k < waiting.size();)
          if (waiting[k].time == now) { lanes |= waiting[k].lanes; waiting[k] = waiting.back(); waiting.pop_back(); }
          else k++;
        if (!lanes) continue;
        pending[net] &= ~lanes;
        change(net, lanes);
        touch(net);
      }
      wheel[now].clear();
      for (int g : touched) {
        marked[g] = false;
        want(gates[g].output, evaluate(gates[g], nets.data()), gates[g].delay, now);
      }
      touched.clear();
    }
  }
};

// Runs `reset` cycles of reset, then `cycles` with transfers offered in every cycle, then without until no output came
// for `drain` cycles.
// Toggles are counted in the cycles from `warm` (after the reset) to the end of `cycles`. `ports`: the nets of rst,
// i_valid, i_ready, o_valid, o_ready; -1 is absent. Returns the number of transfers taken in the counted cycles.
extern "C" int64_t simulate(
    const Gate* gates, int64_t gate_count, const Flop* flops, int64_t flop_count, int64_t net_count,
    const int32_t* ports, const int32_t* i_payload, int64_t i_width, const int32_t* o_payload, int64_t o_width,
    const uint8_t* inputs, int64_t i_bytes, const uint8_t* outputs, int64_t o_bytes, Stream* streams,
    int64_t reset, int64_t warm, int64_t cycles, int64_t drain, int64_t wait, int64_t port_delay, uint64_t* toggles) {
  Simulator s;
  s.gates = gates; s.gate_count = gate_count; s.flops = flops; s.flop_count = flop_count; s.net_count = net_count;
  s.nets.assign(net_count, 0); s.toggles.assign(net_count, 0); s.pending.assign(net_count, 0);
  s.users.resize(net_count); s.events.resize(net_count); s.marked.assign(gate_count, false);
  s.nets[1] = ~(word)0;
  for (int g = 0; g < gate_count; g++)
    for (int i = 0; i < gates[g].count; i++) s.users[gates[g].inputs[i]].push_back(g);
  std::vector<word> payload(i_width), before(flop_count);
  const int32_t delays[2] = {(int32_t)port_delay, (int32_t)port_delay};
  auto put = [&](int net, word value, bool waits) {
    if (net < 0) return;
    if (waits) s.want(net, value, delays, 0); else if (value != s.nets[net]) s.change(net, value ^ s.nets[net]);
  };
  int64_t taken_in_all = 0, stride_in = 0, stride_out = 0;
  for (int k = 0; k < LANES; k++) {
    stride_in = streams[k].count > stride_in ? streams[k].count : stride_in;
    stride_out = streams[k].expected > stride_out ? streams[k].expected : stride_out;
  }
  for (int64_t cycle = -reset, last = cycles; cycle < last + drain; cycle++) {
    s.counting = cycle >= warm && cycle < cycles;
    const bool waits = wait && cycle >= 0;
    word valid = 0;
    for (word& bits : payload) bits = 0;
    for (int k = 0; cycle >= 0 && cycle < cycles && k < LANES; k++) {
      if (streams[k].sent >= streams[k].count) continue;
      valid |= (word)1 << k;
      const uint8_t* row = inputs + (k * stride_in + streams[k].sent) * i_bytes;
      for (int64_t b = 0; b < i_width; b++) payload[b] |= (word)(row[b >> 3] >> (b & 7) & 1) << k;
    }
    for (int f = 0; cycle > -reset && f < flop_count; f++) {
      const word value = flops[f].inverted ? ~before[f] : before[f];
      if (waits) s.want(flops[f].output, value, flops[f].delay, 0);
      else if (value != s.nets[flops[f].output]) s.change(flops[f].output, value ^ s.nets[flops[f].output]);
    }
    put(ports[0], cycle < 0 ? ~(word)0 : 0, waits);
    put(ports[1], valid, waits);
    put(ports[4], ~(word)0, waits);
    // Behind the last transfer the payload stays as it was.
    if (cycle < cycles) for (int64_t b = 0; b < i_width; b++) put(i_payload[b], payload[b], waits);
    if (waits) s.run_events(); else s.settle();
    for (int f = 0; f < flop_count; f++) before[f] = s.nets[flops[f].data];
    if (cycle < 0) continue;
    const word taken = valid & (ports[2] < 0 ? ~(word)0 : s.nets[ports[2]]), shown = s.nets[ports[3]];
    if (shown && cycle > last) last = cycle;
    for (int k = 0; k < LANES; k++) {
      if (taken >> k & 1) { streams[k].sent++; taken_in_all += s.counting; }
      if (!(shown >> k & 1)) continue;
      Stream& stream = streams[k];
      if (stream.seen >= stream.expected) stream.wrong++;
      else {
        const uint8_t* row = outputs + (k * stride_out + stream.seen) * o_bytes;
        for (int64_t b = 0; b < o_width; b++)
          if ((s.nets[o_payload[b]] >> k & 1) != (word)(row[b >> 3] >> (b & 7) & 1)) { stream.wrong++; break; }
      }
      stream.seen++;
    }
  }
  for (int64_t net = 0; net < net_count; net++) toggles[net] = s.toggles[net];
  return taken_in_all;
}
"""
GATE = np.dtype([("output", "<i4"), ("count", "<i4"), ("inputs", "<i4", MOST_INPUTS), ("delay", "<i4", 2),
                 ("table", "<u8")])
FLOP = np.dtype([("data", "<i4"), ("output", "<i4"), ("inverted", "<i4"), ("delay", "<i4", 2)])
STREAM = np.dtype([(name, "<i8") for name in ("count", "sent", "expected", "seen", "wrong")])
ROLES = ("rst", "i_valid", "i_ready", "o_valid", "o_ready")


@dataclass(frozen=True)
class Stimulus:
    """Payloads that a stream offers, golden's answers to them, and the last input of each answer."""

    inputs: Sequence[int]
    outputs: Sequence[int]
    origin: Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Activity:
    """What a simulation found.

    Attributes
    ----------
    toggles : ndarray of float64, shape (nets,)
        Changes of each net per cycle.
    rate : float
        Transfers taken per cycle.
    compared : int
        Outputs that were compared with the golden model's, all equal.
    """

    toggles: np.ndarray
    rate: float
    compared: int


def simulate(netlist: Netlist, timing: Timing, streams: Sequence[Stimulus], *, warm: int, cycles: int, drain: int,
             glitches: bool, port_delay: int) -> Activity:
    """Simulate a unit with streams ``i`` and ``o``, and count what changes.

    Parameters
    ----------
    netlist : Netlist
    timing : Timing
        Its delays make the glitches.
    streams : sequence of Stimulus
        `STREAMS` of them. A transfer is offered in every cycle, and every output is taken at once.
    warm, cycles, drain : int
        Cycles after the reset from which changes are counted, and until which transfers are offered. Cycles without an
        output after which no more is waited for.
    glitches : bool
        Whether gates take their time. A pulse shorter than a gate's delay does not pass it.
    port_delay : int
        Of input ports after the clock's edge, in ps.

    Raises
    ------
    RuntimeError
        An output differs from the golden model's, or did not come.
    """
    def delays(net: int) -> list[int]:
        return [max(round(1000 * each), 1) for each in timing.delays[net]]

    gates = np.array([(net, len(each.inputs), [*each.inputs, *[0] * (MOST_INPUTS - len(each.inputs))], delays(net),
                       each.cell.functions[pin]) for each in netlist.gates
                      for pin, net in zip(each.cell.outputs, each.outputs) if net >= 0], GATE)
    flops = np.array([(each.inputs[each.cell.inputs.index(each.cell.flipflop.data)], net,
                       each.cell.functions[pin] == 0b01, delays(net))
                      for each in netlist.flipflops if each.cell.flipflop is not None
                      for pin, net in zip(each.cell.outputs, each.outputs) if net >= 0], FLOP)
    ports = np.array([netlist.ports[name][1][0] if name in netlist.ports else -1 for name in ROLES], np.int32)
    payloads = [np.array(netlist.ports[name][1], np.int32) for name in ("i_payload", "o_payload")]
    inputs, outputs = (_rows([getattr(each, name) for each in streams], len(nets))
                       for name, nets in zip(("inputs", "outputs"), payloads))
    counts = np.array([(len(each.inputs), 0, len(each.outputs), 0, 0) for each in streams], STREAM)
    toggles = np.zeros(netlist.nets, np.uint64)
    taken = _library().simulate(
        gates.ctypes, len(gates), flops.ctypes, len(flops), netlist.nets, ports.ctypes,
        payloads[0].ctypes, len(payloads[0]), payloads[1].ctypes, len(payloads[1]),
        inputs.ctypes, inputs.shape[2], outputs.ctypes, outputs.shape[2], counts.ctypes,
        RESET, warm, cycles, drain, int(glitches), port_delay, toggles.ctypes)
    for index, (each, row) in enumerate(zip(streams, counts)):
        due = int(np.searchsorted(np.asarray(each.origin), row["sent"]))
        if row["wrong"] or row["seen"] != due or not due:
            raise RuntimeError(f"stream {index}: {row['wrong']} of {row['seen']} outputs differ from the golden model, "
                               f"which answers {due} to {row['sent']} transfers")
    total = STREAMS * (cycles - warm)
    return Activity(toggles / total, taken / total, int(counts["seen"].sum()))


def _rows(payloads: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Return payloads as bytes: shape (streams, most payloads of a stream, bytes of a payload)."""
    size = max(-(-width // 8), 1)
    rows = np.zeros((len(payloads), max(map(len, payloads)), size), np.uint8)
    for stream, each in enumerate(payloads):
        joined = b"".join(payload.to_bytes(size, "little") for payload in each)
        rows[stream, :len(each)] = np.frombuffer(joined, np.uint8).reshape(len(each), size)
    return rows


def _library() -> ctypes.CDLL:
    """Return the compiled simulator; built once."""
    if shutil.which("g++") is None:
        raise MissingExtra("synth with a library needs g++ on PATH, to simulate netlists")

    def compile_into(folder: Path) -> None:
        (folder / "activity.cpp").write_text(SIMULATOR)
        done = subprocess.run([*COMPILE, "activity.cpp", "-o", "activity.so"], cwd=folder, env=unsteered(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            (folder / "build.log").write_text(done.stdout)
            raise RuntimeError(f"g++ failed (log: {folder / 'build.log'})")

    key = hashlib.sha256("\0".join([SIMULATOR, *COMPILE]).encode()).hexdigest()[:12]
    library = ctypes.CDLL(str(build_once(cache_folder("synth") / f"activity-{key}", compile_into) / "activity.so"))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.simulate.argtypes = [pointer, number, pointer, number, number, pointer, pointer, number, pointer, number,
                                 pointer, number, pointer, number, pointer, *[number] * 6, pointer]
    library.simulate.restype = number
    return library
