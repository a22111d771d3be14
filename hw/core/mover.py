# amaranth: UnusedElaboratable=no
"""The core's update lanes: parameters and their numbers in M are read, moved by gradients, and written back."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...golden.number_system import LANES
from ...golden.update import METHODS
from ...golden.words import STAGES, USE, VECTOR, blocks_of
from ..pipeline import delayed, signals, stage
from ..powers import LOSS
from ..update import SGDUpdate
from ..words import AddressedWords
from .epilogue import BEHIND
from .layouts import Geometry, madam_layout, piece_layout, read_layout
from .memories import READ

__all__ = ["STATE", "Mover", "rates_layout"]

STATE = ("velocity", "compensation")  # what M has of a parameter that SGD moves, plane by plane


def rates_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of what does not change while parameters are moved."""
    return data.StructLayout({**geometry.rates, "method": range(len(METHODS)), "key": 64, **madam_layout(geometry)})


class Mover(wiring.Component):
    """Moves parameters by pieces of their gradients, `lanes` in a cycle. Nothing holds it back.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    valid, ready, piece : In, Out, In
        Gradients, and where their parameters lie.
    vector, lane, use : In
        Of the random word of the piece's first gradient.
    bias : In(1)
        The piece is one of sums, for biases, which do not decay.
    rates : In
        See `rates_layout`. They stay while any source is not quiet.
    quiet : Out(2)
        Of pieces of products, and of sums: all parameters have been written.
    wanted, request, granted : Out, Out, In
        Of the memories W and M, at once.
    weights, state : In
        Their answers.
    write, moved, moved_state : Out
        What is written into W, and into M: see `StateBanks`.
    hold : Out(1)
        Of merged memories alone: it writes in so many cycles as a result of the `Epilogue` takes.
    loss : In(LOSS)
        With a loss scale alone: its exponent. It stays likewise.
    old, piece_old : Out
        Likewise: parameters and velocities as they were, before they move.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        self.sgd = g.sgd
        super().__init__({
            "valid": In(1), "ready": Out(1), "piece": In(piece_layout(g, g.width)), "vector": In(VECTOR), "lane": In(4),
            "use": In(USE), "bias": In(1), "rates": In(rates_layout(g)), "quiet": Out(2),
            "wanted": Out(1), "request": Out(read_layout(g)), "granted": In(1),
            "weights": In(data.ArrayLayout(g.bits, g.side)), "state": In(data.ArrayLayout(g.bits, g.banks)),
            "write": Out(1), "moved": Out(piece_layout(g, g.lanes)), "moved_state": Out(piece_layout(g, g.banks)),
            **({"hold": Out(1)} if g.parameters.merged else {}), **self._status,
            **({"loss": In(LOSS), "old": Out(1), "piece_old": Out(piece_layout(g, 2 * g.lanes))} if g.loss else {}),
        })

    @property
    def _status(self) -> dict[str, Any]:
        """Members beside those above."""
        return {}

    @property
    def text(self) -> str:
        """Verilog of the modules that its lanes instantiate."""
        return SGDUpdate(self.sgd).text

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, bits, lanes, low = self.geometry, self.geometry.bits, self.geometry.lanes, self.geometry.low
        below = lanes.bit_length() - 1

        # A piece leaves in groups of parameters that lie in one word of M's banks.
        piece = Signal.like(self.piece, name="piece")
        full = Signal(name="full")
        vector = Signal(VECTOR, name="vector")
        lane = Signal(4, name="lane")
        use = Signal(USE, name="use")
        bias = Signal(name="bias")
        at = Signal(range(g.width + lanes))
        goes, last = signals("goes last")
        room = Signal(range(lanes + 1), name="room")
        column = Signal(low + 1, name="column")
        word = Signal(5, name="word")
        offset = column[:below] if below else C(0, 1)
        step = Signal(range(lanes + 1), name="step")
        self._admit(m, full, goes & last)
        rest, live = piece.elements.as_value() >> (at * bits), piece.live >> at
        m.d.comb += [
            column.eq(piece.column + at), word.eq(lane + at), step.eq(self._paced(bias, 1, lanes - offset)),
        ]
        # Whether a group is the piece's last one is found in the cycle before. All but the first one are whole.
        with m.If(goes):
            next_live = live >> step >> self._paced(bias, 1, lanes)
            m.d.sync += [at.eq(at + step), full.eq(~last), last.eq(~next_live.any())]
        with m.If(self.valid & self.ready):
            given = self.piece
            m.d.comb += room.eq(self._paced(self.bias, 1, lanes - given.column[:below] if below else 1))
            m.d.sync += [piece.eq(given), vector.eq(self.vector), lane.eq(self.lane), use.eq(self.use),
                         bias.eq(self.bias), at.eq(0), full.eq(1), last.eq(~(given.live >> room).any())]
        place = Signal(read_layout(g))
        m.d.comb += [
            place.block.eq(piece.block + column[low]), place.row.eq(piece.row),
            place.column.eq(Cat(C(0, below), column[below:low]) if below else column[:low]),
            self.wanted.eq(full), self.request.eq(place), goes.eq(full & self.granted),
        ]
        alive = (self._paced(bias, live[0], live) << offset)[:lanes]
        now = stage(m, 1, "asked", valid=goes, bias=bias, live=alive,
                    gradients=(rest << (offset * bits))[:lanes * bits])
        for step in range(1, READ):
            now = stage(m, 1, f"read{step}", now)

        group = SimpleNamespace(now=now, goes=goes, bias=bias, live=alive, offset=offset, place=place, vector=vector,
                                word=word, use=use)
        behind, moved_bias = self._update(m, group)
        # Groups under way, by their source.
        for source, here in enumerate((~bias, bias)):
            under = Signal(range(behind + 2), name=f"under{source}")
            m.d.sync += under.eq(under + (goes & here) - (self.write & (moved_bias == source)))
            m.d.comb += self.quiet[source].eq(~under.any() & ~(full & here))
        return m

    def _paced(self, bias: Value, one: Any, whole: Any) -> Any:
        """Return `whole`. Lanes that move biases one by one return `one` for a bias."""
        return whole

    def _admit(self, m: Module, full: Value, leaves: Value) -> None:
        """Take a piece when the one before it leaves."""
        m.d.comb += self.ready.eq(~full | leaves)

    def _noise(self, m: Module, name: str, group: SimpleNamespace, behind: int, bits: int) -> Value:
        """Return the lanes' random words, `behind` cycles after their groups come from the memories.

        Each lane of random words belongs to a parameter of a row of 16.
        """
        ahead, below = behind + READ - STAGES - 1, self.geometry.lanes.bit_length() - 1
        assert ahead >= 0, ahead
        below_index = blocks_of(LANES, bits).bit_length() - 1
        number = Signal(VECTOR, name=f"{name}number")
        m.d.comb += number.eq(group.vector + group.word[4])
        m.submodules[f"{name}random"] = random = AddressedWords(lanes=LANES, bits=bits)
        first = Cat(C(0, below), group.word[below:4]) if below else group.word[:4]
        late = delayed(m, f"{name}word", Cat(first, number, group.use), ahead)
        m.d.comb += [random.key.eq(self.rates.key), random.index.eq(
            Cat(C(0, below_index), late[4:4 + VECTOR - below_index], late[4 + VECTOR:]))]
        first = late[:4]
        for step in range(STAGES):
            first = stage(m, 1, f"{name}lane{step}", lane=first).lane
        return stage(m, 1, f"{name}noise", words=random.words >> (first * bits)).words

    def _give(self, m: Module, unit: SGDUpdate, valid: Value, bias: Value, weight: Value, gradient: Value,
              words: Value) -> None:
        """Give an update lane a parameter, and the rates; its state comes from elsewhere."""
        given, rates = unit.i.payload, self.rates
        m.d.comb += [
            unit.i.valid.eq(valid), unit.o.ready.eq(1), given.weight.eq(weight), given.gradient.eq(gradient),
            given.method.eq(rates.method), unit.words.eq(words), given.lr.eq(rates.rate),
            given.momentum.eq(rates.momentum),
        ]
        if self.geometry.parameters.decays:
            m.d.comb += given.decay.eq(Mux(bias, 0, rates.decay))

    def _update(self, m: Module, group: SimpleNamespace) -> tuple[int, Value]:
        """Build the lanes. Return the cycles from a group to its writing, and whether biases are being written."""
        g, bits, lanes, now = self.geometry, self.geometry.bits, self.geometry.lanes, group.now
        units = [SGDUpdate(self.sgd, addressed=True, held=True, divided=g.loss) for _ in range(lanes)]
        noise = self._noise(m, "", group, units[0].words_behind, self.sgd.random_bits)
        for k, unit in enumerate(units):
            m.submodules[f"lane{k}"] = unit
            self._give(m, unit, now.valid, now.bias, self.weights[k], now.gradients.word_select(k, bits),
                       noise.word_select(k, self.sgd.random_bits))
            m.d.comb += self.moved.elements[k].eq(unit.o.payload.weight)
            for plane, name in enumerate(STATE[:g.planes]):
                bank = plane * lanes + k
                m.d.comb += [unit.i.payload[name].eq(self.state[bank]),
                             self.moved_state.elements[bank].eq(unit.o.payload[name])]
        place = group.place
        if g.loss:
            before = self.piece_old
            found = delayed(m, "old_place", Cat(place.block, place.row, place.column), READ)
            m.d.comb += [
                *(unit.loss.eq(self.loss) for unit in units), self.old.eq(now.valid),
                Cat(before.block, before.row, before.column).eq(found), before.live.eq(Cat(now.live, now.live)),
                Cat(before.elements[k] for k in range(lanes)).eq(self.weights.as_value()[:lanes * bits]),
                Cat(before.elements[lanes + k] for k in range(lanes)).eq(self.state.as_value()[:lanes * bits]),
            ]
        behind = READ + units[0].latency
        later = delayed(m, "place", Cat(group.bias, place.block, place.row, place.column, group.live), behind)
        for target, planes in ((self.moved, 1), (self.moved_state, g.planes)):
            placed = Cat(later[1:], later[-lanes:].replicate(planes - 1))  # what lives is alike in all planes
            m.d.comb += target.as_value()[:len(placed)].eq(placed)
        m.d.comb += self.write.eq(units[0].o.valid)
        if g.parameters.merged:
            # Both write into one memory, and neither waits there.
            m.d.comb += self.hold.eq(delayed(m, "hold", group.goes, behind - BEHIND))
        return behind, later[0]
