"""What drives a trainer's model: C++, as text."""

__all__ = ["HARNESS", "REASONS"]

REASONS = ("hungry", "message", "full", "synced", "quiet", "paused")  # why `run` returned

HARNESS = """\
#include "Unit.h"
#include "Unit___024root.h"
SOURCES
#include <cstring>
#if TRACED
#include "verilated_vcd_c.h"
#endif

void Unit___024root___eval(Unit___024root*);

enum { HUNGRY, MESSAGE, FULL, SYNCED, QUIET, PAUSED };

// What Python and C++ share: see `_State` in model.py.
struct State {
  const uint32_t* inputs; uint32_t* outputs; int64_t* spent;
  int64_t count, sent, more, room, came;              // of transfers
  int64_t idle, busy; uint64_t dice;                  // chances of 65536 that a cycle offers nothing, or takes nothing
  int64_t stop, pause;                                // at the next `synced`, at a cycle
  int64_t patience, quiet, cycle, first, last;        // cycles
  int64_t number, invalid, overflow, stopped, broken, clear;
};

struct Model {
  VerilatedContext context;
  Unit unit{&context};
  bool offered, held, message;
  uint32_t waiting[OUTPUT_WORDS];
  int64_t settle, pulses, settled, told, before;
#if TRACED
  VerilatedVcdC trace;
#endif
};

// The model's own eval() would also look for messages and objects to delete, under locks.
static inline void evaluate(Model& model, State& state, int phase) {
#if TRACED
  model.unit.eval();
  if (state.first <= state.cycle && state.cycle <= state.last) model.trace.dump((uint64_t)(2 * state.cycle + phase));
#else
  Unit___024root___eval(model.unit.rootp);
#endif
}

static inline bool rolls(State& state, int64_t below) {
  if (!below) return false;
  state.dice ^= state.dice << 13; state.dice ^= state.dice >> 7; state.dice ^= state.dice << 17;
  return (int64_t)(state.dice >> 40 & 65535) < below;
}

extern "C" Model* create(const char* waves) {
  Model* model = new Model();
#if TRACED
  model->context.traceEverOn(true);
  model->unit.trace(&model->trace, 99);
  model->trace.open(waves);
#endif
  model->unit.eval();  // the first one starts the model
  return model;
}

extern "C" void destroy(Model* model) {
#if TRACED
  model->trace.close();
#endif
  delete model;
}

extern "C" void reset(Model* model, State* state) {
  Unit& unit = model->unit;
  unit.rst = 1; unit.i_valid = 0; unit.o_ready = 0; unit.status_clear = 0;
  memset(&unit.i_payload, 0, 4 * INPUT_WORDS);
  for (int k = 0; k < 2; k++, state->cycle++) {
    unit.clk = 0; evaluate(*model, *state, 0);
    unit.clk = 1; evaluate(*model, *state, 1);
  }
  unit.rst = 0;
  model->offered = model->held = model->message = false;
  model->settle = model->pulses = model->settled = model->told = state->quiet = 0;
}

// Runs until something is to be told; see REASONS.
extern "C" int64_t run(Model* model, State* shared) {
  Unit& unit = model->unit;
  Model& m = *model;
  State& s = *shared;
  for (;;) {
    if (m.message) { m.message = false; return MESSAGE; }
    if (s.stop && m.told < m.settled) { m.told++; return SYNCED; }
    if (s.came == s.room) return FULL;
    if (s.cycle >= s.pause) return PAUSED;
    if (s.sent == s.count && s.more) return HUNGRY;
    if (s.quiet >= s.patience) { s.quiet = 0; return QUIET; }
    if (!m.offered && s.sent < s.count && !rolls(s, s.idle)) {
      memcpy(&unit.i_payload, s.inputs + s.sent * INPUT_WORDS, 4 * INPUT_WORDS);
      unit.i_valid = m.offered = true;
    }
    unit.o_ready = !rolls(s, s.busy);
    unit.status_clear = s.clear;
    unit.clk = 0; evaluate(m, s, 0);
    bool taken = m.offered && unit.i_ready;
    const uint32_t* payload = (const uint32_t*)&unit.o_payload;
    if (m.held) {  // an output that waits
      if (!unit.o_valid) s.broken |= 2;
      else if (memcmp(m.waiting, payload, sizeof m.waiting)) s.broken |= 1;
    }
    m.held = unit.o_valid && !unit.o_ready;
    if (m.held) memcpy(m.waiting, payload, sizeof m.waiting);
    s.quiet++;
    if (unit.o_valid && unit.o_ready) {
      memcpy(s.outputs + s.came * OUTPUT_WORDS, payload, sizeof m.waiting);
      m.message = payload[LAST / 32] >> LAST % 32 & 1;
      s.came++;
      s.quiet = 0;
    }
    s.number = unit.number;
    s.spent[s.number]++;
    if (s.number != m.before) { m.before = s.number; s.quiet = 0; }
    if (unit.synced) { m.pulses++; m.settle = 3; }
    unit.clk = 1; evaluate(m, s, 1);
    s.cycle++;
    if (taken) { s.sent++; m.offered = false; unit.i_valid = 0; s.quiet = 0; }
    // Two cycles after a pulse all writes are in the memories.
    if (m.settle && --m.settle == 0) m.settled = m.pulses;
    s.invalid = unit.invalid; s.overflow = unit.overflow; s.stopped = unit.stopped;
    s.clear = 0;
  }
}

// Reads a counter: it answers in the next cycle.
extern "C" uint64_t counter(Model* model, State* state, int64_t number) {
  Unit& unit = model->unit;
  unit.counter = number;
  unit.i_valid = unit.o_ready = 0;
  for (int k = 0; k < 2; k++, state->cycle++) {
    unit.clk = 0; evaluate(*model, *state, 0);
    unit.clk = 1; evaluate(*model, *state, 1);
  }
  unit.i_valid = model->offered;
  return unit.count;
}

extern "C" const void* memory(Model* model, int64_t number) {
  Unit___024root& root = *model->unit.rootp;
  const void* found[] = {ARRAYS};
  return found[number];
}
"""
