"""Test vectors of the trainer: programs with what they read, one behind the other."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...golden.core import TrainerParameters
from ...golden.core.device import Device
from ...golden.core.instructions import COUNTERS, KINDS, REGISTERS, SIDES
from ...golden.core.model import UNCOUNTED
from ...golden.core.sequencer import CODE, EDGES
from ...golden.core.transfers import INSTRUCTION, Transfers
from ...golden.update import METHODS, rate_code
from ...golden.words import VECTOR
from .. import recorded
from ..vectors import Vectors
from .maker import LARGER, Maker

__all__ = ["trainer_random", "trainer_recorded", "trainer_vectors"]


def _begin(maker: Maker) -> None:
    """Set the registers, and the modes of two layers."""
    rng, p = maker.rng, maker.p

    def number(register: str, value: Any) -> None:
        maker.emit("set", register=REGISTERS.index(register), value=value)

    number("seed", rng.integers(0, 1 << 32))
    number("training", rng.integers(0, 1 << 32))
    number("scale", p.work.encode(2.0 ** -rng.integers(0, 7) * rng.uniform(1, 2)))
    number("method", METHODS.index(p.updates[rng.integers(len(p.updates))]))
    for register, most in (("rate", 1), ("momentum", 1), *([("decay", 0.1)] if p.decays else [])):
        rate = float(rng.choice([0, rng.uniform(0, most)]))
        if rate and p.rates == "powers":
            rate = 2.0 ** math.floor(math.log2(rate))
        number(register, rate_code(p.stored, rate))
    if p.madam:
        number("shift", rng.integers(0, 8))
        number("correction", -int(rng.integers(0, 1 << rng.integers(0, 16))) % (1 << 32))
        for layer in (0, 1):
            maker.emit("logs", layer=layer, scale=CODE + rng.integers(-20, 5),
                       bound=max(1, p.madam.weight.top >> rng.integers(0, 3)))
    for kind in range(len(KINDS)):
        for layer in (0, 1) if p.system.modes else ():
            value, place = 0, 0
            if "scale" in p.system.modes and rng.random() < 0.7:
                continue  # that of the tensor
            if p.madam:
                maker.emit("mode", kind=kind, layer=layer, value=rng.integers(90, 130))
                continue
            for bits in p.system.modes.values():
                value |= int(rng.integers(0, 1 << bits)) << place
                place += bits
            maker.emit("mode", kind=kind, layer=layer, value=value)


def _gemm(maker: Maker, update: bool, before: Callable[[Maker], None] | None = None) -> None:
    """A product of any operands that fit, now and then in two parts along k. `before` makes what comes just before."""
    rng, p, side = maker.rng, maker.p, maker.side
    for _ in range(50):
        slot = 4 if update else int(rng.choice([0, 2]))
        first = rng.choice(["X", "D"])
        second = "X" if first == "D" and rng.random() < 0.5 else "W"
        if update:
            first, second = "D", "X"
        across = [bool(rng.integers(2)), bool(rng.integers(2))]
        m, n, k = (int(rng.integers(1, 2 * side + 8)) for _ in range(3))
        starts = [int(rng.integers(0, side)) * int(rng.integers(2)) for _ in range(2)]
        shapes = []
        for count, turned, start in zip((m, n), across, starts):
            # Where a block's row has several vectors, any of them may be the first.
            along = 0 if p.system.group == side else int(rng.integers(0, side // p.system.group)) * p.system.group
            shapes.append((k, count, along, start) if turned else (count, k, start, along))
        target = "W" if update else "D" if "X" in (first, second) else "X"
        top, left = (int(rng.integers(0, side)) * int(rng.integers(2)) for _ in range(2))
        if target in (first, second) or not (
                maker.multiplies(m, n, k) and maker.fits(first, *shapes[0]) and maker.fits(second, *shapes[1])
                and maker.fits(target, m, n, top, left)):
            continue
        biased = not update and second != "W" and rng.random() < 0.5 or not update and rng.random() < 0.4
        masked = not update and not biased and target == "D" and rng.random() < 0.5 and maker.fits("X", m, n)
        biased = biased and maker.fits("W", 1, n, 3, 5)
        fields, wholes = {}, {}
        for name, memory, shape in zip("ab", (first, second), shapes):
            found = maker.images(memory, *shape[:2]) if p.windows and rng.random() < 0.6 else None
            if found:
                wholes[name], fields[name] = maker.window(memory, *shape[:2], found)
                shapes["ab".index(name)] = found[0]
            else:
                wholes[name] = fields[name] = maker.tensor(memory, *shape)
        result = maker.images(target, m, n, True) if p.windows and not update and rng.random() < 0.6 else None
        if result:
            wholes["to"], fields["to"] = maker.window(target, m, n, result)
        else:
            wholes["to"] = fields["to"] = maker.tensor(target, m, n, top, left)
        for name, shape in zip("ab", shapes):
            if rng.random() < 0.7:
                coded = p.madam and name == "b" and not update
                maker.bring(wholes[name], (maker.logs_of if coded else maker.numbers_of)(*shape[:2]))
        if update:
            for plane in range(p.planes + 1):
                # What biases have in M is no second moment.
                if rng.random() < 0.5 or p.madam and plane == 1:
                    maker.bring(fields["to"], maker.kept_of(m, n, plane), plane)
        if biased:
            fields["bias"] = maker.tensor("W", 1, n, int(rng.integers(0, 4)), int(rng.integers(0, 6)))
        if masked and result and maker.fits("X", *result[0], *result[1]):
            fields["mask"] = maker.window("X", m, n, result)[1]
        elif masked and not result:
            fields["mask"] = maker.tensor("X", m, n)
        masked = "mask" in fields
        if before:
            before(maker)
        if rng.random() < 0.5:
            pitch = int(rng.integers(1, 100))
            for which in SIDES[:2]:
                maker.emit("part", side=SIDES.index(which), vector=rng.integers(0, 1 << VECTOR - 3), pitch=pitch)
        place = {}
        if update and rng.random() < 0.7:
            place = {"vector": rng.integers(0, 1 << VECTOR - 3), "lane": left % 16, "pitch": rng.integers(1, 50)}
        elif update and left:
            place = {"lane": left % 16}
        flags = {"biased": biased, "masked": masked, "relu": not update and rng.random() < 0.4, "update": update,
                 "across_a": across[0], "across_b": across[1], "use": 8 * rng.integers(0, 2) + slot}
        if "adaptive" in p.policies:
            flags |= {"count_a": rng.random() < 0.7, "count_b": slot != UNCOUNTED and rng.random() < 0.7}
        # A part whose sums the next product goes on with: both have the same operands.
        most = np.array([p.rows, p.columns]) * p.array.open_tile
        runs: list[dict[str, Any]] = [{}]
        if m <= most[0] and n <= most[1] and rng.random() < 0.3 and not p.madam:
            runs = [{"open": 1}, {"continued": 1}]
        for run in runs:
            if place:
                maker.emit("part", side=SIDES.index("to"), **place)
            maker.emit("gemm", **fields, **flags, **run)
        maker.emit("out", a=wholes["to"])
        for plane in range(1, p.planes + 1) if update else ():
            maker.emit("out", a=fields["to"], plane=plane)
        return


def _product(maker: Maker) -> None:
    _gemm(maker, False)


def _move(maker: Maker) -> None:
    _gemm(maker, True)


def _head(maker: Maker) -> None:
    """Errors of any rows that fit, now and then beyond a block, and beyond a vector of random words."""
    rng, p, side = maker.rng, maker.p, maker.side
    for _ in range(50):
        rows, classes = int(rng.integers(1, side + 9)), int(rng.integers(1, min(p.classes, 2 * side + 8) + 1))
        places = [[int(rng.integers(0, side)) * int(rng.integers(2)) for _ in range(2)] for _ in range(2)]
        if not all(maker.fits(memory, rows, classes, *place) for memory, place in zip("XD", places)):
            continue
        labels = maker.tensor("L", 1, rows)
        maker.bring(labels, rng.integers(0, classes, (1, rows)).astype(np.uint32))
        logits, to = (maker.tensor(memory, rows, classes, *place) for memory, place in zip("XD", places))
        maker.bring(logits, maker.numbers_of(rows, classes))
        if rng.random() < 0.5:
            maker.emit("part", side=SIDES.index("a"), vector=rng.integers(0, 1 << VECTOR - 3))
        maker.emit("head", a=logits, labels=labels, to=to, use=7)
        maker.emit("out", a=to)
        return


def _sums(maker: Maker) -> None:
    rng, side = maker.rng, maker.side
    rows, columns = int(rng.integers(1, side + 1)), int(rng.integers(1, side + 1))
    left = int(rng.integers(0, side - columns + 1))
    to = maker.tensor("W", 1, columns, int(rng.integers(0, side)), left)
    maker.emit("part", side=SIDES.index("to"), vector=rng.integers(0, 1 << VECTOR - 3), lane=left % 16)
    found = maker.images("D", rows, columns, True) if maker.p.windows and rng.random() < 0.6 else None
    a = maker.window("D", rows, columns, found)[1] if found else maker.tensor("D", rows, columns)
    maker.emit("sums", a=a, to=to, use=12)
    for plane in range(maker.p.planes + 1):
        maker.emit("out", a=to, plane=plane)


def _fill(maker: Maker) -> None:
    """A tensor is filled with one number. It is a part of a larger one, which is sent then."""
    rng, side = maker.rng, maker.side
    rows, columns = (int(each) for each in rng.integers(1, 2 * side, 2))
    memory = str(rng.choice(["X", "D"]))
    if not maker.fits(memory, rows, columns):
        return
    whole = maker.tensor(memory, rows, columns)
    maker.bring(whole, maker.numbers_of(rows, columns))
    row, column = int(rng.integers(rows)), int(rng.integers(columns))
    maker.emit("view", number=LARGER, of=whole, row=row, column=column, rows=rng.integers(1, rows - row + 1),
               columns=rng.integers(1, columns - column + 1))
    maker.emit("fill", to=LARGER, value=rng.integers(0, 1 << maker.p.work.width))
    maker.emit("out", a=whole)


def _settle(maker: Maker) -> None:
    """Moves and ends of steps, with any loss scale."""
    rng = maker.rng
    for register, value in (("loss", rng.integers(25)), ("accepted", rng.integers(2)), ("interval", rng.integers(4))):
        if rng.random() < 0.5:
            maker.emit("set", register=REGISTERS.index(register), value=value)
    for make in rng.choice(np.array([_move, _sums, _head], object), rng.integers(3)):
        make(maker)
    maker.emit("settle")
    rows, columns = (int(each) for each in rng.integers(1, 2 * maker.side, 2))
    if maker.fits("W", rows, columns):
        number = maker.tensor("W", rows, columns)
        for plane in range(2):
            maker.emit("out", a=number, plane=plane)


def _cyclic(maker: Maker) -> None:
    """A product with precisions that follow new cycles, after steps, now and then in the measuring of accuracy."""
    _gemm(maker, maker.rng.random() < 0.3, _cycles)


def _cycles(maker: Maker) -> None:
    rng = maker.rng
    for kind in rng.permutation(len(KINDS))[:rng.integers(1, len(KINDS) + 1)]:
        period = rng.integers(1, 1 << 32 if rng.random() < 0.2 else 9)
        maker.emit("cyclic", kind=kind, low=rng.integers(0, 16) if rng.random() < 0.1 else 2, period=period)
        for edge in rng.integers(0, period, rng.integers(1, EDGES + 1)):
            maker.emit("edge", kind=kind, value=edge)
    _steps(maker)


def _adaptive(maker: Maker) -> None:
    """Products whose operands choose their precisions. Some thresholds are new."""
    def before(maker: Maker) -> None:
        for kind in range(len(KINDS)):
            divisor = rng.integers(1, 1 << 48)
            if rng.random() < 0.2:
                maker.emit("divisor", kind=kind, rest=divisor)
                maker.emit("slope", kind=kind, code=CODE + rng.integers(-10, 30), rest=rng.integers(divisor))
            for layer in range(2):
                if rng.random() < 0.3:
                    maker.emit("adaptive", kind=kind, layer=layer, code=CODE + rng.integers(-10, 300),
                               rest=rng.integers(divisor), wide=rng.integers(2))
        if rng.random() < 0.7:
            _steps(maker)

    rng = maker.rng
    for _ in range(2):
        _gemm(maker, rng.random() < 0.3, before)


def _steps(maker: Maker) -> None:
    """Steps of training. They may begin anywhere, the last steps that there are among it."""
    rng, training = maker.rng, COUNTERS.index("training")
    if rng.random() < 0.4:
        value = rng.choice([rng.integers(0, 1 << 32), (1 << 32) - rng.integers(1, 3)])
        maker.emit("set", register=REGISTERS.index("training"), value=value)
    for _ in range(rng.integers(1, 4)):
        maker.emit("step", counter=training, next=1)
    maker.emit("step", counter=rng.choice([training, training, 1 - training]))


def _recorded(maker: Maker) -> None:
    """A product of recorded operands of a training run, as far as they fit."""
    rng, gemms = maker.rng, recorded.products()
    x, y = gemms[rng.integers(len(gemms))]
    m, n, k = (int(rng.integers(1, maker.side + 1)) for _ in range(3))
    x, y = x[:m, :k], y[:n, :k]
    if not maker.multiplies(len(x), len(y), x.shape[1]):
        return
    a, b, to = (maker.tensor(*each) for each in (("X", *x.shape), ("W", *y.shape), ("D", len(x), len(y))))
    for number, codes in ((a, x), (b, y)):
        maker.bring(number, maker.p.work.encode(codes.astype(np.float64)).astype(np.uint32))
    maker.emit("gemm", a=a, b=b, to=to)
    maker.emit("out", a=to)


def _transfers(parameters: TrainerParameters, count: int, seed: int, makes: dict[Callable, float]) -> tuple[np.ndarray]:
    """Return transfers of programs, each of so many parts as fit. At the end there are programs of a ``halt`` alone."""
    rng, found = np.random.default_rng(seed), list[int]()
    chances = np.array([*makes.values()])
    while True:
        maker = Maker(parameters, rng)
        _begin(maker)
        begun, full = len(maker.code), False
        while not full:
            kept = list(maker.code), list(maker.tensors)
            rng.choice(np.array([*makes], object), p=chances / chances.sum())(maker)
            if len(maker.code) + 1 > parameters.program or len(found) + maker.cost > count:
                (maker.code, maker.tensors), full = kept, True
        if len(maker.code) == begun:
            break
        found += maker.payloads()
    array = np.empty(count, object)
    array[:] = found + Maker(parameters, rng).payloads() * (count - len(found))
    return (array,)


def trainer_random(parameters: TrainerParameters, count: int, seed: int) -> tuple[np.ndarray]:
    """Return transfers: programs of any products, heads and sums at any place, with random numbers."""
    makes = {_product: 0.5, _move: 0.25, _head: 0.1, _sums: 0.15}
    if parameters.windows:
        makes |= {_fill: 0.1}
    if parameters.loss_scale:
        makes |= {_settle: 1}
    if "cyclic" in parameters.policies:
        makes |= {_cyclic: 0.4}
    if "adaptive" in parameters.policies:
        makes |= {_adaptive: 0.4}
    return _transfers(parameters, count, seed, makes)


def trainer_recorded(parameters: TrainerParameters, count: int, seed: int) -> tuple[np.ndarray]:
    """Return transfers: programs that multiply recorded tensors."""
    return _transfers(parameters, count, seed, {_recorded: 1})


def trainer_vectors(parameters: TrainerParameters, payloads: np.ndarray) -> Vectors:
    """Return Vectors for ``trainer``: transfers in order, and what golden's core answers to them."""
    transfers = Transfers(parameters)
    device = Device(parameters)
    inputs = payloads.tolist()
    device.run(inputs)
    core = device.core

    def describe(index: int) -> str:
        kind = "an instruction" if inputs[index] >> transfers.input_bits == INSTRUCTION else "elements"
        return f"transfer {index}, {kind}: {inputs[index]:x}"

    return Vectors(inputs, [payload for payload, _ in device.answers], [taken for _, taken in device.answers],
                   {"invalid": int(core.invalid is not None), "overflow": int(core.overflow is not None), "stopped": 0},
                   describe)
