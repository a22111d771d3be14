# amaranth: UnusedElaboratable=no
"""The core's memories, and the way of every unit to them."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import memory

from ...golden.core.instructions import MEMORIES
from ..pipeline import UNCHECKED, stage
from .layouts import Geometry
from .memories import READ, Banks, StateBanks, reads, writes

__all__ = ["connect"]


def connect(m: Module, geometry: Geometry, u: SimpleNamespace) -> None:
    """Build the memories, and give each unit its way to them.

    Parameters
    ----------
    m : Module
    geometry : Geometry
    u : namespace
        The units: products, epilogue, mover, sums, head, input, output, `fill` with windows, and `settling` with a loss
        scale.
    """
    g, p = geometry, geometry.parameters
    products, epilogue, mover, sums, head, input_, output = (
        u.products, u.epilogue, u.mover, u.sums, u.head, u.input, u.output)
    banks = {}
    for name, depth in g.depths.items():
        m.submodules[f"memory_{name}"] = banks[name] = Banks(g, depth, max(g.width, g.lanes, p.stream))
    m.submodules.memory_m = state = StateBanks(g, p.blocks["W"])
    # Labels: one is written in a cycle, and one is read.
    m.submodules.labels = labels = memory.Memory(shape=len(input_.number), depth=p.labels, init=[], attrs=UNCHECKED)
    label, told = labels.write_port(), labels.read_port()
    m.d.comb += [label.addr.eq(input_.label), label.data.eq(input_.number), label.en.eq(input_.label_valid),
                 told.addr.eq(head.label), head.labelled.eq(told.data)]

    def is_in(place: Any, name: str) -> Value:
        return place.memory == MEMORIES.index(name)

    # Results and updates come first, as other units wait for them. The results themselves never wait.
    in_w, always = Signal(name="mover_in_w"), Signal(name="epilogue_granted")
    ways = []
    ways.append((always, {"W": epilogue.bias, "X": epilogue.mask}, epilogue.request))
    ways.append((in_w, {"W": mover.wanted}, mover.request))
    ways.append((head.granted, {"X": head.wanted}, head.request))
    # Sums and operands share the errors: sums come first, but not in two cycles that follow each other.
    first, second, turned = Signal(name="sums_first"), Signal(name="sums_second"), Signal(name="sums_turned")
    m.d.comb += sums.granted.eq(first | second)
    m.d.sync += turned.eq(sums.granted)
    ways.append((first, {"D": sums.wanted & ~turned}, sums.request))
    sides = {0: "XD", 1: "WX"}
    for side in range(p.converters):
        wanted, source = getattr(products, f"wanted{side}"), getattr(products, f"source{side}")
        asked: dict[str, Any] = {}
        for number in sides if p.converters == 1 else (side,):
            for which, name in enumerate(sides[number]):
                asked[name] = asked.get(name, 0) | wanted & (source == 2 * number + which)
        ways.append((getattr(products, f"granted{side}"), asked, getattr(products, f"request{side}")))
    ways.append((second, {"D": sums.wanted & turned}, sums.request))
    ways.append((output.granted, {name: output.wanted & is_in(output.a, name) for name in "XDW"}, output.request))

    given: dict[str, list] = {name: [] for name in banks}
    for number, (granted, asked, request) in enumerate(ways):
        grants = []
        for name in banks:
            wanted = [each for each_name, each in asked.items() if g.memories[each_name][0] == name]
            if wanted:
                grants.append(Signal(name=f"granted_{name}_{number}"))
                given[name].append((Cat(wanted).any(), request, grants[-1]))
        m.d.comb += granted.eq(Cat(grants).any())
    for name, clients in given.items():
        reads(m, name, banks[name], clients)
    in_m = Signal(name="mover_in_m")
    m.d.comb += mover.granted.eq(in_w & in_m)
    walks = [(u.settling.walks, u.settling.request, Signal(name="settling_reads"))] if g.loss else []
    reads(m, "m", state, [*walks, (mover.wanted, mover.request, in_m),
                          (output.state_wanted, output.request, output.state_granted)])

    # The answers.
    found = {name: banks[where].found for name, (where, _) in g.memories.items()}
    m.d.comb += [mover.weights.eq(found["W"]), mover.state.eq(state.found), head.found.eq(found["X"]),
                 sums.found.eq(found["D"]), output.state_found.eq(state.found)]

    def choose(target: Any, choices: dict[str, Value]) -> None:
        """Drive a target with the answer of the memory whose condition holds, the last one where none does."""
        *others, last = choices
        chosen = found[last].as_value()
        for name in others:
            if g.memories[name] is not None and found[name] is not found[last]:
                chosen = Mux(choices[name], found[name].as_value(), chosen)
        m.d.comb += target.as_value().eq(chosen)

    choose(epilogue.found, {"W": epilogue.task.biased, "X": C(1, 1)})
    choose(output.found, {name: is_in(output.a, name) for name in "XDW"})
    for side in range(p.converters):
        source = getattr(products, f"source{side}")
        for step in range(READ):
            source = stage(m, 1, f"source{side}_{step}", source=source).source
        choose(getattr(products, f"found{side}"), {
            0: {"D": source[0], "X": C(1, 1)}, 1: {"X": source[0], "W": C(1, 1)},
        }[side] if p.converters == 2 else {"D": source == 1, "W": source == 2, "X": C(1, 1)})

    # What is written. Nothing holds back the mover and the epilogue. In merged memories they agree some cycles before.
    if p.merged:
        m.d.comb += epilogue.hold.eq(mover.hold)
    for name, bank in banks.items():
        clients = []

        def there(logical: str, name: str = name) -> bool:
            return g.memories[logical][0] == name

        if there("W"):
            if g.loss:
                clients.append((u.settling.undoes, u.settling.weights, Signal(name=f"{name}_undone")))
            clients.append((mover.write, mover.moved, Signal(name=f"{name}_moved")))
        if there("X") or there("D"):
            # The task was there some cycles before its first piece. What moves parameters is in W.
            ends = Signal(name=f"{name}_stores")
            m.d.sync += ends.eq(Cat(is_in(epilogue.task.to, each) for each in "XD" if there(each)).any())
            clients.append((epilogue.o.valid & ends, epilogue.o.payload, Signal(name=f"{name}_stored")))
        if there("D"):
            clients.append((head.valid, head.piece, head.ready))
        if g.windows and (there("X") or there("D")):
            filling = Cat(is_in(u.fill.to, each) for each in "XD" if there(each)).any()
            filled = Signal(name=f"{name}_filled")
            clients.append((u.fill.valid & filling, u.fill.piece, filled))
            with m.If(filling):
                m.d.comb += u.fill.ready.eq(filled)
        inward = Signal(name=f"{name}_input")
        wanted = Cat(is_in(input_.to, each) for each in "XDW" if there(each)).any()
        clients.append((input_.valid & wanted, input_.piece, inward))
        writes(m, name, bank, clients)
        with m.If(wanted):
            m.d.comb += input_.ready.eq(inward)
    changes = [(u.settling.changes, u.settling.state, Signal(name="settling_changes"))] if g.loss else []
    writes(m, "m", state, [*changes, (mover.write, mover.moved_state, Signal(name="mover_moves")),
                           (input_.state_valid, input_.state, input_.state_ready)])
