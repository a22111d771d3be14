"""What precision control adds up of a tensor's 2-bit chunks, and compares with a threshold: stages of its units.

Source: numerics contract, section 3 (FAST); see `golden.precision.sum_chunks`.
"""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import memory

from ..golden.precision import AdaptiveParameters
from .pipeline import UNCHECKED, signals, stage

__all__ = ["accumulate", "combine", "counted_fields", "levels", "multiply", "total"]


def counted_fields(group: int, exponent: int, keys: int) -> dict[str, int]:
    """Return the widths of what is told of a group of elements: whether it counts, and for which tensor, by a key of
    so many bits; the sums of its chunks; its exponent.
    """
    bits = (3 * group).bit_length()
    return {"counted": 1, "key_counted": keys, "low": bits, "high": bits, "code": exponent}


def levels(group: int) -> int:
    """Return the stages that `total` takes."""
    return ((group - 1).bit_length() + 1) // 2


def total(m: Module, advance: Value, now: SimpleNamespace) -> SimpleNamespace:
    """Return the stage in which ``low`` and ``high``, lists of a group's chunks in `now`, are lists of one sum."""
    bits, level = 2, 0
    while len(now.low) > 1:
        bits, level = bits + min(2, (len(now.low) - 1).bit_length()), level + 1
        added: dict[str, Any] = {}
        for name in ("low", "high"):
            terms = getattr(now, name)
            for _ in range(2):
                terms = [a + b for a, b in zip(terms[::2], terms[1::2])] + terms[len(terms) & ~1:]
            added[name] = [Cat(each, C(0, bits))[:bits] for each in terms]
        now = stage(m, advance, f"level{level}", now, **added)
    return now


def accumulate(m: Module, parameters: AdaptiveParameters, depth: int, code: Value, low: Value, high: Value, *,
               adds: Value, walks: Value, counts: Value, ends: Value) -> SimpleNamespace:
    """Add to the pair of sums of a code, or read and clear it; nothing waits.

    Parameters
    ----------
    m : Module
    parameters : AdaptiveParameters
    depth : int
        Pairs.
    code, low, high : Value
        What is added to which pair.
    adds, walks : Value
        In this cycle a group adds, or the pair is cleared.
    counts, ends : Value
        Handed on.

    Returns
    -------
    namespace
        Two cycles later: the stage ``held``, and the pair before, ``current``. ``saturates``: a sum does.
    """
    p = parameters
    m.submodules.memory = words = memory.Memory(shape=2 * p.bits, depth=depth, init=[], attrs=UNCHECKED)
    read = words.read_port()
    write = words.write_port()
    m.d.comb += [read.addr.eq(code), read.en.eq(1)]
    moves = C(1, 1)  # from here on nothing waits
    fetched = stage(m, moves, "fetched", valid=walks | adds, walks=walks, counts=counts, ends=ends, code=read.addr,
                    low=low, high=high)

    # The memory answers without the last three sums. `sums` was made last, and is written in this cycle. Carries
    # saturate the sums only when these are used. To add and to saturate takes too long for one cycle.
    sums, older, newest, current = signals("sums older newest current", 2 * p.bits)
    carries = Signal(2)
    m.d.comb += newest.eq(sums | Cat(each.replicate(p.bits) for each in carries))
    added_to, written, seen = signals("added_to written seen", len(fetched.code) + 1)
    m.d.sync += [written.eq(added_to), seen.eq(written), older.eq(newest)]
    wanted = Cat(fetched.code, 1)
    held = stage(m, moves, "held", fetched, words=read.data, again=wanted == added_to,
                 known=(wanted == written) | (wanted == seen), recent=Mux(wanted == written, newest, older))
    m.d.comb += [
        added_to.eq(Cat(held.code, held.valid)),
        write.addr.eq(written[:-1]), write.en.eq(written[-1]), write.data.eq(newest),
    ]

    # Add the group's chunks, or clear what the walk has read.
    m.d.comb += current.eq(Mux(held.again, newest, Mux(held.known, held.recent, held.words)))
    for place, name in enumerate(("low", "high")):
        total = Signal(p.bits + 1, name=f"{name}_total")
        m.d.comb += total.eq(current.word_select(place, p.bits) + getattr(held, name))
        m.d.sync += Cat(sums.word_select(place, p.bits), carries[place]).eq(total)
    with m.If(held.walks):
        m.d.sync += [sums.eq(0), carries.eq(0)]
    return SimpleNamespace(held=held, current=current, saturates=written[-1] & carries.any())


def combine(m: Module, parameters: AdaptiveParameters, now: SimpleNamespace, begins: Value) -> list[Signal]:
    """Return a tensor's numerator and quarter of its denominator, of the pairs that a walk counts, upwards.

    What was below is halved at each code. `begins` clears both; `now` is what `accumulate` returns.
    """
    p, totals = parameters, []
    for place, name in enumerate(("numerator", "quarter")):
        combined = Signal(p.total, name=name, reset_less=True)
        with m.If(now.held.counts):
            m.d.sync += combined.eq((combined >> 1) + (now.current.word_select(place, p.bits) << p.guard))
        with m.Elif(begins):
            m.d.sync += combined.eq(0)
        totals.append(combined)
    return totals


def multiply(m: Module, parameters: AdaptiveParameters, sums: list[Signal], code: Value, *, begins: Value, ends: Value,
             busy: Signal) -> tuple[Signal, Signal, Value]:
    """Multiply the quarter by the threshold, from its top bit down, to compare the numerator with the product.

    Parameters
    ----------
    m : Module
    parameters : AdaptiveParameters
    sums : list of Signal
        What `combine` returns.
    code : Value
        The threshold, where it `begins`.
    begins, ends : Value
        The walk begins; its last pair is being added.
    busy : Signal
        Set here: there is a tensor to decide on.

    Returns
    -------
    multiplies, left : Signal
        The walk has ended; additions of the product that are left. The caller clears `multiplies`, and `busy`.
    enough : Value
        In the end: the numerator is large enough.
    """
    p, (numerator, quarter) = parameters, sums
    multiplies = Signal()
    left = Signal(range(p.fraction + 2))
    threshold = Signal(p.fraction + 1, reset_less=True)
    product = Signal(p.total + p.fraction + 1, reset_less=True)
    with m.If(begins):
        m.d.sync += [threshold.eq(code), product.eq(0), left.eq(p.fraction + 1), busy.eq(1)]
    m.d.sync += multiplies.eq(busy & (multiplies | ends))
    with m.If(multiplies & (left != 0)):
        m.d.sync += [
            product.eq((product << 1) + (quarter & threshold[-1].replicate(p.total))),
            threshold.eq(threshold << 1), left.eq(left - 1),
        ]
    enough = Cat(C(0, p.fraction), numerator) >= Cat(C(0, 2), product)
    return multiplies, left, enough
