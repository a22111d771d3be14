"""Weight update by SGD with momentum: plain, stochastic, with Kahan compensation, or grown to two numbers."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib.wiring import In

from ..base.checks import require
from ..golden.floating import AdderParameters
from ..golden.update import METHODS, SGDParameters
from . import meanings
from .floating import FloatAdder
from .multiplier import text_of
from .pipeline import signals, stage
from .powers import DIVIDER, LOSS, PowerDivider
from .rates import SCALER, RateMultiplier
from .unit import StreamUnit

__all__ = ["ADDER", "SCALER", "SGDUpdate"]

ADDER = 6  # cycles of an addition
STOCHASTIC, GROW = METHODS.index("stochastic"), METHODS.index("grow")


class SGDUpdate(StreamUnit):
    """Weight update by stochastic gradient descent with momentum and weight decay, in one narrow format.

    See `golden.update.step` for the operations, each of which is rounded: nothing is fused or reassociated. Source:
    numerics contract, section 8.

    Parameters
    ----------
    parameters : SGDParameters
    addressed : bool
        Whether random words come from a port, and not from the unit's own count of its stochastic transfers. Of the
        pipelined schedule alone.
    held : bool
        Promises that ``method`` and the rates stay as they are while transfers are under way, also in cycles without a
        valid one. Then the pipeline has no registers for them.
    divided : bool
        Whether the change is divided by a loss scale before it is added. Of a pipelined unit without compensation. The
        scale stays while transfers are under way.

    Members
    -------
    i : In(stream)
        ``weight``, ``velocity``, ``compensation``, ``gradient`` (codes); ``method``: 0 plain, 1 stochastic, 2 Kahan,
        3 grow (in a unit that cannot, Kahan); ``lr``, ``momentum``, ``decay`` (see `SGDParameters.rate`). If not
        `SGDParameters.compensated`, there is no ``compensation``, and ``method`` has one bit; without
        `SGDParameters.decays`, there is no ``decay``.
    o : Out(stream)
        ``weight``, ``velocity``; if compensated, ``compensation``: zero for the methods that have none.
    invalid, overflow : Out(1)
        Sticky: a result was NaN; one was infinite, and none of its transfer's NaN.
    status_clear : In(1)
        Clears both.
    loss : In(LOSS)
        If `divided`: the exponent of the loss scale, a power of two.
    words : In(random_bits)
        If `addressed`: the random word of the transfer that was accepted `words_behind` cycles before.

    Attributes
    ----------
    words_behind : int
        If `addressed`: cycles from an accepted transfer to the cycle of its random word, unless the unit stalls. While
        it stalls, the word has to stay.
    latency : int
        Cycles from an accepted transfer to its result. The shared unit accepts one when it is done with it.
    interval : int
        Cycles between transfers, at the most: 1 when pipelined.
    """

    def __init__(self, parameters: SGDParameters, *, addressed: bool = False, held: bool = False, divided: bool = False
                 ) -> None:
        require(not addressed or parameters.schedule == "pipelined", "schedule", parameters.schedule,
                "pipelined, for random words from a port")
        require(not divided or parameters.schedule == "pipelined" and not parameters.compensated, "divided", divided,
                "false, unless the unit is pipelined and has no compensation")
        self.parameters, self.addressed, self.held, self.divided = parameters, addressed, held, divided
        width, rate = parameters.format.width, parameters.rate_bits
        numbers = dict.fromkeys(self._results, width)
        words: dict[str, Any] = {"words": In(parameters.random_bits)} if addressed else {}
        words |= {"loss": In(LOSS)} if divided else {}
        super().__init__({**numbers, "gradient": width, "method": parameters.method_bits,
                          **dict.fromkeys(self._rates, rate)}, numbers, **words)

    @property
    def _results(self) -> tuple[str, ...]:
        """The numbers that the unit holds of a weight, which are its results."""
        return ("weight", "velocity", "compensation")[:3 if self.parameters.compensated else 2]

    @property
    def _rates(self) -> tuple[str, ...]:
        return ("lr", "momentum", "decay")[:3 if self.parameters.decays else 2]

    @property
    def _additions(self) -> int:
        """Additions of the longest method."""
        return ((9 if self.parameters.grow else 6) if self.parameters.compensated else 3) - (not self.parameters.decays)

    @property
    def _division(self) -> int:
        """Cycles of the division by a loss scale."""
        return DIVIDER if self.divided else 0

    @property
    def words_behind(self) -> int:
        # All additions but those behind the weight's, which takes the word in its last cycle.
        return 2 * SCALER + (self._additions - (2 if self.parameters.compensated else 0)) * ADDER - 1 + self._division

    @property
    def latency(self) -> int:
        if self.parameters.schedule == "shared":
            return 1
        return 2 * SCALER + self._additions * ADDER + 1 + self._division

    @property
    def interval(self) -> int:  # type: ignore[override]
        if self.parameters.schedule == "pipelined":
            return 1
        # A cycle before each operation, in which its operands are chosen; one in which the result is handed over.
        return len(self._rates) * (1 + SCALER) + self._additions * (1 + ADDER) + 1

    @property
    def text(self) -> str:
        """Verilog of the module that the unit instantiates."""
        multiplier = RateMultiplier.multiplier(self.parameters)
        return text_of(**multiplier) if multiplier else ""

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        code = meanings.numbers(p.format)
        rate = (f"0 to below 2: {code} without its two top bits" if p.rates == "float" else
                f"a power of two, or 0: the exponent of a {code} without its top bit")
        kahan = "what Kahan's method is to subtract"
        compensated = ", 2 Kahan, 3 " + ("grow" if p.grow else "the same as 2")
        return {
            "weight": code, "velocity": code, "gradient": code,
            "compensation": f"{code}: {kahan}" + (", or what the grown weight is to add" if p.grow else ""),
            "method": "0 plain, 1 stochastic" + (compensated if p.compensated else ""),
            "lr": f"learning rate, {rate}", "momentum": rate, "decay": f"weight decay, {rate}",
            "invalid": "sticky: a result was NaN",
            "overflow": "sticky: a result was infinite, and none of its transfer was NaN",
            "words": "random word of the transfer that now makes its weight",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        advance = (self._pipelined if self.parameters.schedule == "pipelined" else self._shared)(m)
        fmt = self.parameters.format
        done = Signal()
        m.d.sync += done.eq(advance)
        codes = [self.o.payload[name] for name in self._results]
        tops = [code[fmt.mantissa:-1].all() for code in codes]
        nan = Cat(top & code[:fmt.mantissa].any() for top, code in zip(tops, codes)).any()
        # Each result counts once, when it has just come.
        self.report(m, invalid=done & self.o.valid & nan, overflow=done & self.o.valid & Cat(tops).any() & ~nan)
        return m

    def _adder(self, rounding: str = "nearest", *, addressed: bool = False) -> FloatAdder:
        return FloatAdder(AdderParameters(
            self.parameters.format, rounding, random_bits=self.parameters.random_bits, seed=self.parameters.seed,
            latency=ADDER), embedded=True, addressed=addressed)

    def _pipelined(self, m: Module) -> Value:
        """Build the unit with a pipeline for each operation; return when it moves."""
        parameters, payload = self.parameters, self.i.payload
        width = parameters.format.width
        advance = self.handshake(m)

        def wait(name: str, now: SimpleNamespace, cycles: int, **results: Any) -> SimpleNamespace:
            """Hand the values on for some cycles, and add what has come by then."""
            stays = {each: value for each, value in vars(now).items() if self.held and each in ("method", "lr")}
            now = without(now, *stays)
            for cycle in range(cycles):
                now = stage(m, advance, f"{name}{cycle}", now)
            return SimpleNamespace(**vars(now) | stays | results)

        def product(name: str, a: Value, rate: Value, neutral: int = 0) -> Value:
            m.submodules[name] = unit = RateMultiplier(parameters)
            m.d.comb += [unit.a.eq(a), unit.rate.eq(rate), unit.neutral.eq(neutral), unit.enable.eq(advance)]
            return unit.o

        def sum_(name: str, a: Value, b: Value, subtract: Any = 0, unit: FloatAdder | None = None) -> Value:
            m.submodules[name] = unit = unit or self._adder()
            m.d.comb += [unit.i.payload.a.eq(a), unit.i.payload.b.eq(b), unit.i.payload.subtract.eq(subtract),
                         unit.enable.eq(advance)]
            return unit.o.payload.value

        def without(now: SimpleNamespace, *names: str) -> SimpleNamespace:
            return SimpleNamespace(**{name: value for name, value in vars(now).items() if name not in names})

        now = SimpleNamespace(valid=self.i.valid, **{name: payload[name] for name in (
            *self._results, "gradient", "method", *self._rates)})
        if parameters.compensated:
            # What the methods without a compensation have instead: +0, which changes nothing when it is subtracted.
            now.compensation = now.compensation & now.method[1].replicate(width)
        products = {"decayed": product("decay", now.weight, now.decay, 1)} if parameters.decays else {}
        products["kept"] = product("momentum", now.velocity, now.momentum)
        now = wait("product", without(now, "decay", "momentum", "velocity"), SCALER, **products)
        if parameters.decays:
            now = wait("gradient", without(now, "gradient", "decayed"), ADDER,
                       gradient=sum_("gradient", now.gradient, now.decayed))
        now = wait("velocity", without(now, "gradient", "kept"), ADDER,
                   velocity=sum_("velocity", now.kept, now.gradient))
        now = wait("change", without(now, "lr"), SCALER, change=product("change", now.velocity, now.lr))
        now.change = Cat(now.change[:-1], ~now.change[-1])
        if self.divided:
            m.submodules.divider = divider = PowerDivider(parameters.format)
            m.d.comb += [divider.a.eq(now.change), divider.power.eq(self.loss), divider.enable.eq(advance)]
            now = wait("divided", without(now, "change"), DIVIDER, change=divider.o)
        grow = C(0, 1)
        if parameters.grow:
            # What the change makes of the weight, and what is lost by that: the change of what that makes.
            now = wait("first", now, ADDER, first=sum_("first", now.weight, now.change))
            now = wait("moved", now, ADDER, moved=sum_("moved", now.first, now.weight, 1))
            grow = now.method == GROW
            now.weight = Mux(grow, now.first, now.weight)
            now = wait("lost", without(now, "first", "moved"), ADDER, lost=sum_("lost", now.change, now.moved, 1))
            grow = now.method == GROW
            now.change = Mux(grow, now.lost, now.change)
            now = without(now, "lost")
        if parameters.compensated:
            now = wait("corrected", without(now, "change", "compensation"), ADDER,
                       change=sum_("corrected", now.change, now.compensation, ~grow))
        adder = self._adder("stochastic", addressed=self.addressed)
        if self.addressed:
            m.d.comb += adder.words.eq(self.words)
        m.d.comb += [adder.i.valid.eq(now.valid), adder.i.payload.nearest.eq(now.method != STOCHASTIC)]
        now = wait("weight", now, ADDER, new=sum_("weight", now.weight, now.change, unit=adder))
        if parameters.compensated:
            now = wait("step", without(now, "weight"), ADDER, step=sum_("step", now.new, now.weight, 1))
            grow = now.method == GROW if parameters.grow else C(0, 1)
            now = wait("compensation", without(now, "change", "step"), ADDER, compensation=sum_(
                "compensation", Cat(now.step[:-1], now.step[-1] ^ grow), now.change, ~grow))
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(now.valid),
                self.o.payload.weight.eq(now.new),
                self.o.payload.velocity.eq(now.velocity),
            ]
            if parameters.compensated:
                m.d.sync += self.o.payload.compensation.eq(now.compensation)
                with m.If(~now.method[1]):
                    m.d.sync += self.o.payload.compensation.eq(0)
        return advance

    def _shared(self, m: Module) -> Value:
        """Build the unit with one adder and one multiplier; return when its result changes."""
        parameters, payload = self.parameters, self.i.payload
        width = parameters.format.width
        m.submodules.adder = adder = self._adder("stochastic")
        m.submodules.scaler = scaler = RateMultiplier(parameters)

        # The operations in order. In their first cycle the operands are chosen; then the unit moves until it has the
        # result, which so is there in the next one's first cycle. The transfer is accepted at the end: its payload is
        # there all the time. `sum_` and `product` are the latest results of both units.
        names = [*(["decay", "gradient"] if parameters.decays else []), "momentum", "velocity", "change"]
        names += ["first", "moved", "lost"] if parameters.grow else []
        names += ["corrected", "weight", "step", "compensation", "end"] if parameters.compensated else ["weight", "end"]
        at = {name: index for index, name in enumerate(names)}
        place = Signal(range(len(names)))
        cycle = Signal(range(max(ADDER, SCALER) + 1))
        scales = Cat(C(name in ("decay", "momentum", "change"), 1) for name in names)
        scales_at = Signal(len(names), name="scales_at")
        scaling, running, start, done = signals("scaling running start done")
        compensated, grows = (payload.method[1] if parameters.compensated else C(0, 1),
                              payload.method == GROW if parameters.grow else C(0, 1))
        m.d.comb += [
            scales_at.eq(scales >> place), scaling.eq(scales_at[0]),
            running.eq(self.i.valid & (~self.o.valid | self.o.ready) & (place != at["end"])),
            start.eq(cycle == 0),
            done.eq(cycle == Mux(scaling, SCALER, ADDER)),
            self.i.ready.eq(~self.o.valid & (place == at["end"])),
        ]
        with m.If(running):
            m.d.sync += cycle.eq(Mux(done, 0, cycle + 1))
        following = Signal.like(place)
        m.d.comb += following.eq(place + 1)
        if parameters.compensated:
            with m.If(place == at["change"]):
                m.d.comb += following.eq(
                    Mux(compensated, Mux(grows, at.get("first", 0), at["corrected"]), at["weight"]))
            with m.If((place == at["weight"]) & ~compensated):
                m.d.comb += following.eq(at["end"])
        with m.If(running & done):
            m.d.sync += place.eq(following)

        sum_, product = adder.o.payload.value, scaler.o
        added, first = signals("added first", width)  # what was added to the weight; and, when that grows, to what
        a, b, number = signals("a b number", width)
        rate = Signal(parameters.rate_bits)
        nearest, neutral = signals("nearest neutral")
        m.d.comb += [
            adder.i.payload.a.eq(a), adder.i.payload.b.eq(b), adder.i.payload.nearest.eq(nearest),
            adder.i.valid.eq(cycle == 1), adder.enable.eq(running & ~scaling & ~start),
            scaler.a.eq(number), scaler.rate.eq(rate), scaler.neutral.eq(neutral),
            scaler.enable.eq(running & scaling & ~start),
        ]

        def flipped(value: Any, flip: Value) -> Value:
            return Cat(value[:-1], value[-1] ^ flip)

        # Of each addition: whether its first operand is the sum, or else the product; the second one; and whether
        # either changes its sign. The product with the learning rate is what is taken off.
        additions = {
            "gradient": (0, "gradient", 0, 0),
            "velocity": (1, "product", 0, 0) if parameters.decays else (0, "gradient", 0, 0),
            "first": (0, "weight", 1, 0),
            "moved": (1, "weight", 0, 1),
            "lost": (1, "product", 1, 1),
            "corrected": (grows, "compensation", ~grows, ~grows),
            "weight": (compensated, "old", ~compensated, 0),
            "step": (1, "old", 0, 1),
            "compensation": (1, "added", grows, ~grows),
        }
        additions = {name: row for name, row in additions.items() if name in at}
        seconds = {"gradient": payload.gradient, "product": product, "weight": payload.weight}
        if parameters.compensated:
            seconds |= {"compensation": payload.compensation, "added": added, "first": first}
        factors = {"decay": payload.weight, "momentum": payload.velocity, "change": sum_}
        factors = {name: number for name, number in factors.items() if name in at}
        rates = {name: payload["lr" if name == "change" else name] for name in factors}

        def by_place(values: dict[str, Any], shape: Any = 1) -> Value:
            """Return what belongs to the place; what happens at the others does not matter."""
            chosen = Signal(shape)
            usual = next(iter(values.values()))
            m.d.comb += chosen.eq(Array(values.get(name, usual) for name in names)[place])
            return chosen

        from_sum, flip, flip_second = (by_place({name: row[k] for name, row in additions.items()}) for k in (0, 2, 3))
        number_of: dict[str, Any] = {name: index for index, name in enumerate(seconds)}
        number_of["old"] = Mux(grows, number_of.get("first", 0), number_of["weight"])
        which = by_place({name: number_of[row[1]] for name, row in additions.items()}, range(len(seconds)))
        first_operand, second_operand = Mux(from_sum, sum_, product), Array(seconds.values())[which]
        with m.If(running & start):
            m.d.sync += [
                a.eq(flipped(first_operand, flip)), b.eq(flipped(second_operand, flip_second)),
                number.eq(by_place(factors, width)), rate.eq(by_place(rates, parameters.rate_bits)),
                nearest.eq((place != at["weight"]) | (payload.method != STOCHASTIC)),
                neutral.eq(place == at["decay"] if parameters.decays else 0),
            ]
            with m.Switch(place):
                for name, kept in (("change", self.o.payload.velocity), ("moved", first), ("weight", added),
                                   ("step", self.o.payload.weight)):
                    if name in at and (name != "weight" or parameters.compensated):
                        with m.Case(at[name]):
                            m.d.sync += kept.eq(sum_)
        # The result before this one has been taken: the first operation waited for that.
        end = self.i.valid & self.i.ready
        with m.If(end):
            m.d.sync += [place.eq(0), self.o.valid.eq(1)]
            if parameters.compensated:
                m.d.sync += self.o.payload.compensation.eq(sum_)
                with m.If(~compensated):
                    m.d.sync += [self.o.payload.weight.eq(sum_), self.o.payload.compensation.eq(0)]
            else:
                m.d.sync += self.o.payload.weight.eq(sum_)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return end
