# amaranth: UnusedElaboratable=no
"""Update lanes of a core with logarithmic weights: Madam's for weights, and one of SGD for biases."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib.wiring import In, Out

from ..madam import MadamUpdate
from ..pipeline import delayed
from ..update import SGDUpdate
from .epilogue import BEHIND
from .memories import READ
from .mover import STATE, Mover

__all__ = ["MadamMover"]


class MadamMover(Mover):
    """Moves weights by Madam, `lanes` in a cycle, and biases by SGD, one in a cycle.

    The two kinds of lanes take different times. So biases wait until all weights have been written, and the other way
    round.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    invalid, overflow : Out(1)
        Sticky, of the weights: a gradient was NaN; see `MadamUpdate`.
    status_clear : In(1)
    """

    @property
    def _status(self) -> dict[str, Any]:
        return {"invalid": Out(1), "overflow": Out(1), "status_clear": In(1)}

    def _paced(self, bias: Value, one: Any, whole: Any) -> Any:
        return Mux(bias, one, whole)

    def _admit(self, m: Module, full: Value, leaves: Value) -> None:
        m.d.comb += self.ready.eq((~full | leaves) & Mux(self.bias, self.quiet[0], self.quiet[1]))

    def _update(self, m: Module, group: SimpleNamespace) -> tuple[int, Value]:
        g, bits, lanes, now, rates = self.geometry, self.geometry.bits, self.geometry.lanes, group.now, self.rates
        assert g.madam is not None
        p, first, planes = g.madam, delayed(m, "first", group.offset, READ), STATE[:g.planes]
        m.submodules.bias = sgd = SGDUpdate(self.sgd, addressed=True, held=True)
        units = [MadamUpdate(p, addressed=True, held=True) for _ in range(lanes)]

        # The one bias of a group.
        words: Value = C(0, self.sgd.random_bits)
        if "stochastic" in g.parameters.updates:
            noise = self._noise(m, "bias_", group, sgd.words_behind, self.sgd.random_bits)
            turn = delayed(m, "bias_first", first, sgd.words_behind)
            words = noise.word_select(turn, self.sgd.random_bits)
        self._give(m, sgd, now.valid & now.bias, now.bias, Array(self.weights[k] for k in range(lanes))[first],
                   now.gradients.word_select(first, bits), words)
        for plane, name in enumerate(planes):
            banks = Array(self.state[plane * lanes + k] for k in range(lanes))
            m.d.comb += sgd.i.payload[name].eq(banks[first])

        # The weights.
        noise = self._noise(m, "", group, MadamUpdate.words_behind, p.random_bits)
        for k, unit in enumerate(units):
            m.submodules[f"lane{k}"] = unit
            given, found = unit.i.payload, unit.o.payload
            m.d.comb += [
                unit.i.valid.eq(now.valid & ~now.bias & now.live[k]), unit.o.ready.eq(1),
                unit.status_clear.eq(self.status_clear), unit.words.eq(noise.word_select(k, p.random_bits)),
                given.weights[0].eq(self.weights[k]), given.gradients[0].eq(now.gradients.word_select(k, bits)),
                given.seconds[0].eq(self.state[k]), given.correction.eq(rates.correction), given.rate.eq(rates.shift),
                given.bound.eq(rates.bound),
                self.moved.elements[k].eq(Mux(sgd.o.valid, sgd.o.payload.weight, found.weights[0])),
                self.moved_state.elements[k].eq(Mux(sgd.o.valid, sgd.o.payload.velocity, found.seconds[0])),
                *(self.moved_state.elements[plane * lanes + k].eq(sgd.o.payload[name])
                  for plane, name in enumerate(planes) if plane),
            ]
        m.d.comb += [getattr(self, name).eq(Cat(getattr(unit, name) for unit in units).any())
                     for name in ("invalid", "overflow")]

        # Where they go. Only biases have more planes.
        soon, behind = READ + MadamUpdate.latency, READ + sgd.latency
        place = group.place
        weights = delayed(m, "place", Cat(place.block, place.row, place.column, group.live), soon)
        biases = delayed(m, "bias_place", weights, behind - soon)
        later = Mux(sgd.o.valid, biases, weights)
        for target, more in ((self.moved, 0), (self.moved_state, g.planes - 1)):
            placed = Cat(later, (later[-lanes:] & sgd.o.valid.replicate(lanes)).replicate(more))
            m.d.comb += target.as_value()[:len(placed)].eq(placed)
        m.d.comb += self.write.eq(sgd.o.valid | delayed(m, "moves", group.goes & ~group.bias, soon))
        if g.parameters.merged:
            holds = [delayed(m, f"{name}hold", group.goes & which, cycles - BEHIND)
                     for name, which, cycles in (("", ~group.bias, soon), ("bias_", group.bias, behind))]
            m.d.comb += self.hold.eq(Cat(holds).any())
        return behind, sgd.o.valid
