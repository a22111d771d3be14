"""How the core's units are given instructions, and when they begin with them."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import *

from ...golden.core.instructions import MEMORIES
from ...golden.network import UPDATE
from ...golden.number_system import LANES
from ...golden.words import USE
from ..pipeline import signals
from .issue import coded_b
from .layouts import Geometry
from .mover import rates_layout
from .tasks import SETTLE

__all__ = ["hand_others", "hand_products", "hand_sums", "move"]


def hand_products(m: Module, geometry: Geometry, u: SimpleNamespace) -> None:
    """Hand products to the array, and to the epilogue what is to be done to their results.

    A product begins when its tokens are there, and all products before it are done. An early product begins beside the
    product before, unless sums go on from one to the other.
    """
    issue, products, epilogue, tasks = u.issue, u.products, u.epilogue, u.tasks
    a, b, low = issue.a, issue.b, geometry.low
    # The one that waits for its turn.
    product = Signal.like(products.i.payload, name="product", reset_less=True)
    task = Signal.like(tasks.given, name="product_task", reset_less=True)
    loaded, compared, begins, early = signals("array_loaded array_compared array_begins array_early")
    step, number = Signal.like(issue.step, name="product_step"), Signal.like(issue.number, name="product_number")
    with m.If(u.takes["array"]):
        m.d.sync += [
            product.m.eq(issue.to.rows), product.n.eq(issue.to.columns),
            product.k.eq(Mux(issue.across_a, a.rows, a.columns)), product.first.eq(~issue.continued),
            product.last.eq(~issue.open), product.use.eq(issue.use), product.key.eq(issue.key),
            product.pitch.eq(Mux(issue.a_part.pitch.any(), issue.a_part.pitch, issue.b_part.pitch)),
            product.a.source.eq(a.memory == MEMORIES.index("D")), product.b.source.eq(b.memory == MEMORIES.index("X")),
        ]
        for target, place, across, part, mode in ((product.a, a, issue.across_a, issue.a_part, issue.a_mode),
                                                  (product.b, b, issue.across_b, issue.b_part, issue.b_mode)):
            m.d.sync += [
                target.block.eq(place.block), target.stride.eq(place.stride), target.transposed.eq(across),
                target.first.eq(Mux(across, place.left[:low], place.top)), target.vector.eq(part.vector),
                *(target[name].eq(mode[name]) for name in geometry.parameters.system.modes),
            ]
        if geometry.madam:
            m.d.sync += [product.a.coded.eq(0), product.b.coded.eq(coded_b(issue.use)), task.step.eq(issue.step)]
        if geometry.along:
            for target, place, across in ((product.a, a, issue.across_a), (product.b, b, issue.across_b)):
                m.d.sync += target.along.eq(Mux(across, place.top, place.left[:low])[low - geometry.along:])
        if geometry.scaled:
            m.d.sync += [product.a.given.eq(issue.a_given), product.b.given.eq(issue.b_given)]
        if geometry.windows:
            for target, place, shape in ((product.a, a, issue.a_shape), (product.b, b, issue.b_shape)):
                tensor = target.tensor
                m.d.sync += [
                    *(tensor[name].eq(place[name]) for name in ("block", "stride", "top")),
                    tensor.left.eq(place.left[:low]), tensor.window.eq(shape),
                ]
            m.d.sync += task.window.eq(issue.to_shape)
        if geometry.adaptive:
            m.d.sync += [product.a.counts.eq(issue.count_a), product.b.counts.eq(issue.count_b)]
        m.d.sync += [
            task.to.eq(issue.to), task.other.eq(issue.other), task.part.vector.eq(issue.to_part.vector),
            task.part.lane.eq(issue.to_part.lane),
            task.part.pitch.eq(Mux(issue.to_part.pitch.any(), issue.to_part.pitch,
                                   (issue.to.columns + (LANES - 1)) >> (LANES.bit_length() - 1))),
            *(task[name].eq(issue[name]) for name in ("biased", "masked", "relu", "update", "open")),
            *(task.rates[name].eq(issue[name]) for name, _ in task.rates.shape()),
            task.use.eq(Cat(C(UPDATE, 3), issue.use[3:])), step.eq(issue.step), number.eq(issue.number),
            early.eq(issue.early & ~issue.open & ~issue.continued), loaded.eq(1),
        ]
    # The array compares keys in the cycle before.
    m.d.sync += compared.eq(loaded & ~begins)
    m.d.comb += [
        begins.eq(loaded & compared & u.opens["array"] & products.i.ready & (tasks.none | early & tasks.one)),
        products.i.valid.eq(begins), products.i.payload.eq(product), tasks.valid.eq(begins), tasks.given.eq(task),
        u.free["array"].eq(~loaded),
    ]
    if geometry.adaptive:
        m.d.comb += products.waits.eq(loaded)
    with m.If(begins):
        m.d.sync += [loaded.eq(0), u.steps["array"].eq(step), u.numbers["array"].eq(number)]
    with m.If(products.taken):
        m.d.sync += u.steps["cells"].eq(u.steps["array"])
    m.d.comb += [
        *(epilogue.task[name].eq(tasks.task[name]) for name, _ in epilogue.task.shape()),
        epilogue.active.eq(tasks.active & ~tasks.task.open),
        tasks.gone.eq(Mux(tasks.task.open, ~products.reading, epilogue.done)),
        tasks.moved.eq(~epilogue.o.valid & u.mover.quiet[0]),
        u.busy["array"].eq(~tasks.none), u.done["array"].eq(tasks.done), epilogue.i.valid.eq(products.o.valid),
        epilogue.i.payload.eq(products.o.payload), products.o.ready.eq(epilogue.i.ready),
    ]


def hand_sums(m: Module, geometry: Geometry, u: SimpleNamespace) -> None:
    """Give the sums their instruction; it is done when the parameters have been written."""
    issue, sums = u.issue, u.sums
    u.kept = Signal(rates_layout(geometry), name="rates_vector")
    u.kept_use = Signal(USE, name="use_vector")
    unit, runs, more = sums, sums.busy | ~u.mover.quiet[1], list[tuple[Any, Any]]()
    if geometry.windows:
        # The same unit fills tensors.
        start, fills = signals("vector_starts vector_fills")
        unit, runs = SimpleNamespace(start=start), runs | u.fill.busy
        m.d.comb += [sums.start.eq(start & ~fills), u.fill.start.eq(start & fills)]
        more = [(sums.shape, issue.a_shape), (fills, issue.fills), (u.fill.to, issue.to), (u.fill.value, issue.value)]
    _follow(m, u, "vector", unit, runs, [
        *more,
        (sums.a, issue.a), (sums.to, issue.to), (sums.first, issue.to_part.vector), (sums.lane, issue.to_part.lane),
        (u.kept_use, Cat(C(UPDATE, 3), issue.use[3:])),
        *((u.kept[name], issue[name]) for name, _ in u.kept.shape())])


def hand_others(m: Module, u: SimpleNamespace) -> None:
    """Give head, input and output their instructions."""
    issue, head, input_, output = u.issue, u.head, u.input, u.output
    _follow(m, u, "head", head, head.busy, [
        (head.a, issue.a), (head.labels, issue.b), (head.to, issue.to), (head.scale, issue.scale),
        (head.key, issue.key), (head.use, issue.use), (head.vector, issue.a_part.vector),
        (u.steps["head"], issue.step)])
    _follow(m, u, "in", input_, input_.busy, [
        (input_.to, issue.to), (input_.plane, issue.plane),
        (input_.labels, issue.to.memory == MEMORIES.index("L")), (u.numbers["in"], issue.number)])
    _follow(m, u, "out", output, output.busy, [(output.a, issue.a), (output.plane, issue.plane)])


def _follow(m: Module, u: SimpleNamespace, name: str, unit: Any, runs: Value,
            given: Sequence[tuple[Any, Any]]) -> None:
    """Start a unit when it is free, and when its next instruction has its tokens.

    What it is `given` are registers, and their values when the instruction is handed out. An instruction is done
    when what it wrote can be read.
    """
    loaded, begins, works = signals(f"{name}_loaded {name}_begins {name}_works")
    left = Signal(range(SETTLE + 1), name=f"{name}_settle")
    m.d.comb += [
        begins.eq(loaded & ~works & u.opens[name]), u.free[name].eq(~loaded), u.busy[name].eq(works),
        u.done[name].eq(works & ~left.any()),
    ]
    m.d.sync += unit.start.eq(begins)
    for number, (register, value) in enumerate(given):
        target, value = Value.cast(register), Value.cast(value)
        waits = Signal(len(target), name=f"{name}_waits{number}", reset_less=True)
        with m.If(u.takes[name]):
            m.d.sync += waits.eq(value)
        with m.If(begins):
            m.d.sync += target.eq(waits)
    with m.If(u.takes[name]):
        m.d.sync += loaded.eq(1)
    with m.If(begins):
        m.d.sync += [loaded.eq(0), works.eq(1)]
    with m.Elif(u.done[name]):
        m.d.sync += works.eq(0)
    with m.If(begins | unit.start | runs):
        m.d.sync += left.eq(SETTLE)
    with m.Elif(left.any()):
        m.d.sync += left.eq(left - 1)


def move(m: Module, u: SimpleNamespace) -> None:
    """Let products and sums move parameters, in turn where both go by the same rates, and else one after the other.

    Sums come first: there are few of them.
    """
    epilogue, sums, mover, tasks = u.epilogue, u.sums, u.mover, u.tasks
    rates = Signal.like(mover.rates, name="rates")
    wants = {"vector": sums.valid, "array": epilogue.o.valid & epilogue.task.update}
    kept = {"vector": u.kept, "array": tasks.task.rates}
    loads = Signal(name="loads")
    may = {}
    # What is compared here stays while its numbers are there.
    for name, each in kept.items():
        alike = Signal(name=f"alike_{name}")
        m.d.sync += alike.eq((each.as_value() == rates.as_value()) & ~loads)
        may[name] = wants[name] & alike
    other, loaded = signals("other_rates loaded_rates")
    turn, array = may["vector"], may["array"] & ~wants["vector"]
    m.d.sync += loaded.eq(loads)
    m.d.comb += [
        other.eq(Mux(wants["vector"], ~may["vector"], wants["array"] & ~may["array"])),
        loads.eq(other & mover.quiet.all() & ~loaded),
    ]
    with m.If(loads):
        m.d.sync += rates.eq(Mux(wants["vector"], kept["vector"], kept["array"]))
    m.d.comb += [
        mover.rates.eq(rates), mover.bias.eq(turn), mover.valid.eq(turn | array),
        mover.piece.eq(Mux(turn, sums.piece, epilogue.o.payload)),
        mover.vector.eq(Mux(turn, sums.vector, epilogue.vector)),
        mover.lane.eq(Mux(turn, sums.word, epilogue.lane)), mover.use.eq(Mux(turn, u.kept_use, tasks.task.use)),
        sums.ready.eq(turn & mover.ready), epilogue.o.ready.eq(~epilogue.task.update | array & mover.ready),
    ]
