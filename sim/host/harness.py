"""What drives a device's model: C++, as text."""

__all__ = ["HARNESS"]

HARNESS = """\
#include "Unit.h"
#include "Unit___024root.h"
SOURCES

void Unit___024root___eval(Unit___024root*);

// What Python and C++ share: see `_State` in model.py.
struct State {
  const uint8_t* inputs; uint8_t* outputs;
  int64_t count, sent, room, came;  // bytes
  int64_t divisor, cycle;
};

struct Line { int bits = 0; int64_t left = 0; uint32_t shift = 0; };

struct Model {
  VerilatedContext context;
  Unit unit{&context};
  Line to, from;
};

extern "C" Model* create() {
  Model* model = new Model();
  model->unit.rx = 1;
  model->unit.eval();  // the first one starts the model
  return model;
}

extern "C" void destroy(Model* model) { delete model; }

static inline void clock(Model& model, State& state) {
  model.unit.clk = 0; Unit___024root___eval(model.unit.rootp);
  model.unit.clk = 1; Unit___024root___eval(model.unit.rootp);
  state.cycle++;
}

extern "C" void reset(Model* model, State* state) {
  model->unit.rst = 1;
  for (int k = 0; k < 2; k++) clock(*model, *state);
  model->unit.rst = 0;
  model->to = model->from = Line();
}

// Runs so many cycles, or until the output has `wanted` bytes.
extern "C" void run(Model* model, State* shared, int64_t cycles, int64_t wanted) {
  Model& m = *model;
  State& s = *shared;
  for (; cycles > 0 && s.came < wanted && s.came < s.room; cycles--) {
    if (!m.to.bits && s.sent < s.count) {
      m.to.shift = 0x200u | (uint32_t)s.inputs[s.sent++] << 1;
      m.to.bits = 10;
      m.to.left = s.divisor;
    }
    m.unit.rx = m.to.bits ? m.to.shift & 1 : 1;
    if (m.to.bits && --m.to.left == 0) { m.to.shift >>= 1; m.to.bits--; m.to.left = s.divisor; }
    clock(m, s);
    if (!m.from.bits) {
      if (!m.unit.tx) { m.from.bits = 10; m.from.left = s.divisor / 2; }
    } else if (--m.from.left == 0) {
      m.from.shift = m.from.shift >> 1 | (uint32_t)m.unit.tx << 9;
      m.from.left = s.divisor;
      if (--m.from.bits == 0) s.outputs[s.came++] = (uint8_t)(m.from.shift >> 1);
    }
  }
}
"""
