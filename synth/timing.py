"""Static timing of a mapped netlist, before layout: no wires, an ideal clock."""

from dataclasses import dataclass

from .liberty import Arc
from .mapped import ONE, Instance, Netlist

__all__ = ["Timing", "analyse"]

RISE, FALL = 0, 1
NEVER = float("-inf")


@dataclass(frozen=True)
class Timing:
    """What static timing found; times in ns.

    Attributes
    ----------
    delay : float
        The longest path: from a port or a flip-flop's clock to a port or a flip-flop's data, with its setup time.
    path : list of str
        The cells along it.
    slews : list of (float, float)
        Transition of each net, rising and falling: the slowest.
    delays : dict of (int, (float, float))
        Delay of each driven net's cell, rising and falling: the mean over the arcs of its output.
    """

    delay: float
    path: list[str]
    slews: list[tuple[float, float]]
    delays: dict[int, tuple[float, float]]


def _edges(sense: str, edge: int) -> tuple[int, ...]:
    """Return the edges of an input that make an output's `edge`."""
    return {"positive_unate": (edge,), "negative_unate": (1 - edge,)}.get(sense, (RISE, FALL))


def analyse(netlist: Netlist, slew: float) -> Timing:
    """Return the timing of a netlist.

    Parameters
    ----------
    netlist : Netlist
    slew : float
        Transition of the clock and of the input ports, in ns. Input ports change at the clock's edge.
    """
    loads = netlist.loads()
    arrivals = [[0.0, 0.0] for _ in range(netlist.nets)]
    slews = [[slew, slew] for _ in range(netlist.nets)]
    before: dict[tuple[int, int], tuple[int, int, str]] = {}
    delays: dict[int, tuple[float, float]] = {}

    def drive(each: Instance, net: int, arcs: list[tuple[Arc, int]]) -> None:
        """Work out an output: `arcs` with the nets that they begin at."""
        clocked = each.cell.flipflop is not None
        means = []
        latest, slowest = [NEVER, NEVER], [0.0, 0.0]
        for edge in (RISE, FALL):
            found = []
            for arc, source in arcs:
                for other in (RISE,) if clocked else _edges(arc.sense, edge):
                    delay = arc.delay[edge].at(loads[net], slews[source][other])
                    found.append(delay)
                    start = 0.0 if clocked else arrivals[source][other]
                    if start + delay > latest[edge]:
                        latest[edge] = start + delay
                        before[net, edge] = (source, other, each.cell.name)
                    slowest[edge] = max(slowest[edge], arc.transition[edge].at(loads[net], slews[source][other]))
            means.append(sum(found) / len(found) if found else 0.0)
        arrivals[net], slews[net], delays[net] = latest, slowest, (means[RISE], means[FALL])

    for each in netlist.flipflops:
        for pin, net in zip(each.cell.outputs, each.outputs):
            if net >= 0:
                drive(each, net, [(arc, each.inputs[each.cell.inputs.index(arc.source)])
                                  for arc in each.cell.arcs[pin]])
    for each in netlist.gates:
        at = dict(zip(each.cell.inputs, each.inputs))
        for pin, net in zip(each.cell.outputs, each.outputs):
            if net >= 0:
                # A constant never changes: no path begins there.
                drive(each, net, [(arc, at[arc.source]) for arc in each.cell.arcs[pin] if at[arc.source] > ONE])

    ends = [(arrivals[net][edge], net, edge) for way, nets in netlist.ports.values() if way == "output"
            for net in nets for edge in (RISE, FALL)]
    for each in netlist.flipflops:
        assert each.cell.flipflop is not None
        data = each.inputs[each.cell.inputs.index(each.cell.flipflop.data)]
        ends += [(arrivals[data][edge] + each.cell.flipflop.setup[edge].at(0.0, slews[data][edge]), data, edge)
                 for edge in (RISE, FALL)]
    delay, net, edge = max(ends, default=(0.0, 0, RISE))
    path = []
    while (net, edge) in before:
        net, edge, name = before[net, edge]
        path.append(name)
    return Timing(delay, path[::-1], [(rise, fall) for rise, fall in slews], delays)
