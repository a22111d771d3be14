"""Test vectors of the array: writes of its memory, and products of what is there."""

import numpy as np

from ..golden import array as golden
from ..golden.words import USE, VECTOR, blocks_of
from ..hw.array import CellArray
from . import recorded, runner
from .vectors import Vectors, pack, unpack

__all__ = [
    "addresses", "array_random", "array_recorded", "array_vectors", "instructions", "modes", "sizes_of", "timing",
]

PLACE = ("block", "stride", "transposed")


def modes(rng, system, count):
    """Return modes of operands, shape (count, modes): any, but scales near what fits numbers of about 1."""
    columns = [system.default(name) + rng.integers(-3, 4, count) if name == "scale"
               else rng.integers(0, 1 << bits, count) for name, bits in system.modes.items()]
    return np.stack([*columns, np.zeros(count, int)], axis=1)[:, :len(columns)]


def _elements(rng, parameters, count):
    """Return vectors of codes: most of like numbers, some of zeros, a few of any codes at all."""
    work, group = parameters.system.work, parameters.system.group
    values = rng.normal(size=(count, group)) * 2.0 ** rng.integers(-4, 3, (count, 1))
    codes = work.encode(values).astype(np.int64)
    kind = rng.random(count)
    any_code = rng.integers(0, 1 << work.width, (count, group))
    # The more vectors a product has, the fewer of them may make it NaN.
    codes = np.where((kind > 1 - 1e-4 * group)[:, np.newaxis], any_code, codes)
    return np.where((kind < 0.05)[:, np.newaxis], 0, codes)


def sizes_of(rng, parameters):
    """Return the sizes of a product that fits, of few tiles and vectors."""
    p, group = parameters, parameters.system.group
    most = max(min(3 if group > 1 else 20, p.words // p.tile[0]), 1)
    k = int(rng.integers(1, most * group + 1))
    columns = p.words // -(-k // group) * p.columns
    # Buffers of fewer words than a tile has rows hold one with fewer results down.
    down = 2 * p.tile[0] + 1 if p.words >= p.tile[0] else p.words
    m = int(rng.integers(1, p.rows * down + 1))
    return m, int(rng.integers(1, min(2 * p.columns * p.tile[1] + p.columns, columns) + 1)), k


def array_random(parameters, count, seed):
    """Return instructions: writes all over the memory, and between them products, at any place, of any mode."""
    rng = np.random.default_rng(seed)
    p = parameters
    multiply = (rng.random(count) < 0.08) & (np.arange(count) > count // 4)
    sizes = np.array([sizes_of(rng, p) for _ in range(count)]).reshape(count, 3)
    operands = [np.concatenate([np.stack([rng.integers(0, p.blocks, count), rng.integers(0, p.blocks, count),
                                          rng.integers(0, 2, count)], axis=1), modes(rng, p.system, count)], axis=1)
                for _ in range(2)]
    # Some products are made in two parts, with writes between them.
    first, last = np.ones(count, bool), np.ones(count, bool)
    at = np.flatnonzero(multiply)
    for one, two in zip(at[::3], at[1::3]):
        if rng.random() < 0.5:
            last[one] = first[two] = False
            most = np.array([p.rows, p.columns]) * p.open_tile
            sizes[[one, two], :2] = np.minimum(sizes[one, :2], most)
    return (multiply, _elements(rng, p, count), rng.integers(0, p.system.group, count), *sizes.T, first, last,
            *operands, *addresses(rng, p.system, count))


def addresses(rng, system, count):
    """Return (use, step, pitch, a's first vector, b's first vector) of the random words of instructions.

    Steps stay for some instructions, as a new one takes time. Parts of larger operands are as frequent as whole ones.
    """
    if not system.random:
        return (np.zeros(count, int),) * 5
    steps = np.repeat(rng.integers(0, 1 << 32, count), rng.integers(1, 60, count))[:count]
    steps[:count // 3] = 0
    part = rng.random(count) < 0.5
    start = (1 << VECTOR - 1) // blocks_of(*system.random)
    return (rng.integers(0, 1 << USE, count), steps, np.where(part, rng.integers(0, 5000, count), 0),
            *(np.where(part, rng.integers(0, start, count), 0) for _ in range(2)))


def array_recorded(parameters, count, seed):
    """Return instructions that make products of recorded GEMMs: their operands are written, either way, and read."""
    rng = np.random.default_rng(seed)
    p, system = parameters, parameters.system
    group, gemms, rows = system.group, recorded.products(), []
    while len(rows) < count:
        x, y = gemms[rng.integers(len(gemms))]
        m, n, k = sizes_of(rng, p)
        m, n, k = min(m, len(x)), min(n, len(y)), min(k, x.shape[1])
        start = int(rng.integers(0, x.shape[1] - k + 1))
        operands, block, groups = [], 0, -(-k // group)
        for matrix, height in ((x, m), (y, n)):
            transposed = int(rng.integers(2))
            high = -(-height // group)
            stride = high if transposed else groups
            if block + high * groups > p.blocks:
                break
            # A scale that suits the tensor; other modes are any.
            part = matrix[:height, start:start + k]
            mode = modes(rng, system, 1)[0]
            if "scale" in system.modes:
                top = int(np.floor(np.log2(max(np.abs(part).max(), 2.0**-100))))
                mode[list(system.modes).index("scale")] = system.default("scale") + top - 4
            operands.append([block, stride, transposed, *mode])
            padded = np.zeros((height, groups * group))
            padded[:, :k] = part
            codes = system.work.encode(padded).reshape(height, groups, group)
            for row, along in np.ndindex(height, groups):
                down = row // group
                at = block + (along * stride + down if transposed else down * stride + along)
                rows.append((0, codes[row, along], row % group, 0, 0, 0, 1, 1, [at, 0, transposed], [0, 0, 0]))
            block += high * groups
        if len(operands) == 2:
            rows.append((1, np.zeros(group, int), 0, m, n, k, 1, 1, *operands))
    width = len(PLACE) + len(system.modes)
    columns = list(zip(*rows[:count], strict=True))
    for side in (-2, -1):
        columns[side] = [[*each, *[0] * (width - len(each))] for each in columns[side]]
    return (*(np.array(each) for each in columns), *addresses(rng, system, count))


def _operand(system, fields, vector):
    block, stride, transposed, *mode = map(int, fields)
    return golden.Operand(block, stride, bool(transposed), dict(zip(system.modes, mode, strict=True)), int(vector))


def array_vectors(parameters, multiply, elements, index, m, n, k, first, last, a, b, *address):
    """Return Vectors for ``array``: instructions in order, and what the golden model answers to them.

    `address` is what `addresses` returns; without it, all is 0.
    """
    p, system = parameters, parameters.system
    use, step, pitch, *vectors = address or np.zeros((5, len(multiply)), int)
    model = golden.ArrayModel(p)
    block = max((p.blocks - 1).bit_length(), 1)
    widths = (block, block, 1, *system.modes.values())

    def each_operand(side):
        fields = [((a, b)[side][:, field], width) for field, width in enumerate(widths)]
        return [*fields, (vectors[side], VECTOR)] if system.random else fields

    inputs = pack((multiply, 1), (elements, system.work.width), (index, max((system.group - 1).bit_length(), 1)),
                  (m, golden.SIZE), (n, golden.SIZE), (k, golden.SIZE), (first, 1), (last, 1),
                  *each_operand(0), *each_operand(1),
                  *([(use, USE), (step, 32), (pitch, VECTOR)] if system.random else []))
    outputs, origin = [], []
    for at in range(len(multiply)):
        if not multiply[at]:
            model.write(int(a[at, 0]) % p.blocks, int(index[at]), bool(a[at, 2]), elements[at])
            continue
        operands = [_operand(system, side[at], vector[at]) for side, vector in zip((a, b), vectors)]
        product = golden.Product(int(m[at]), int(n[at]), int(k[at]), *operands, bool(first[at]), bool(last[at]),
                                 int(use[at]), int(step[at]), int(pitch[at]))
        codes = model.multiply(product)
        if codes is None:
            continue
        row, column = golden.transfers(p, product.m, product.n)
        down = row[:, np.newaxis] * p.rows + np.arange(p.rows)
        across = column[:, np.newaxis] * p.columns + np.arange(p.columns)
        # A cell without a result repeats the last row's, or column's.
        values = codes[np.minimum(down, product.m - 1)[:, :, np.newaxis],
                       np.minimum(across, product.n - 1)[:, np.newaxis]]
        outputs += pack((values.reshape(len(row), -1), system.accumulator.width), (row, p.labels[0]),
                        (column, p.labels[1]), (down < product.m, 1), (across < product.n, 1),
                        (np.arange(len(row)) == len(row) - 1, 1))
        origin += [at] * len(row)

    def describe(index):
        where = [f"{name} " + ", ".join(f"{key} {value}" for key, value in zip((*PLACE, *system.modes), side[index]))
                 for name, side in (("a", a), ("b", b))]
        return f"product m {m[index]}, n {n[index]}, k {k[index]}, step {step[index]}; " + "; ".join(where)

    def show(payload):
        values = unpack(payload, *[system.accumulator.width] * (p.rows * p.columns))
        rest = unpack(payload >> (system.accumulator.width * p.rows * p.columns), *p.labels, p.rows, p.columns, 1)
        words = [f"{name} {value}" for name, value in zip(("row", "column", "rows", "columns", "last"), rest)]
        return ", ".join(words) + "; " + " ".join(f"{value:x}" for value in values)

    return Vectors(inputs, outputs, origin, {"invalid": int(model.invalid), "overflow": int(model.overflow),
                                             "exceeded": 0}, describe, show)


def instructions(parameters, products, steps=None):
    """Return the Vectors of products alone, on a memory of zeros.

    Parameters
    ----------
    parameters : ArrayParameters
    products : sequence of tuple
        Each is (m, n, k, modes of a, modes of b), and (first, last) if it is a part of a product.
    steps : sequence of int, optional
        Of their random words; all 0 if not given.
    """
    system, count = parameters.system, len(products)
    modes_of = [[[each[side][name] for name in system.modes] for each in products] for side in (3, 4)]
    place = np.tile([0, 1, 0], (count, 1))
    sides = [np.concatenate([place, np.array(each).reshape(count, -1)], axis=1) for each in modes_of]
    sizes = np.array([each[:3] for each in products]).reshape(count, 3)
    parts = np.array([each[5] if len(each) > 5 else (True, True) for each in products]).reshape(count, 2)
    return array_vectors(parameters, np.ones(count, bool), np.zeros((count, system.group), int),
                         np.zeros(count, int), *sizes.T, *parts.T, *sides, *np.array(
                             [[0] * count, steps or [0] * count, *[[0] * count] * 3]))


def timing(parameters, count=4, seed=1):
    """Simulate products in a row without stalls; return their cycles, measured and by golden.

    Both are equal unless a number system is wrong about its `latency`, `depth`, `interval` or `recurrence`.

    Parameters
    ----------
    parameters : ArrayParameters
    count, seed : int
        Products of any sizes and modes, behind one of a vector and a vector.

    Returns
    -------
    measured, expected : list of int
        Cycles from the first instruction to the last result of each product.
    """
    rng, system = np.random.default_rng(seed), parameters.system
    products = [(1, 1, 1, parameters.complete(), parameters.complete())]
    products += [(*sizes_of(rng, parameters), *(dict(zip(system.modes, map(int, each)))
                                                for each in modes(rng, system, 2))) for _ in range(count)]
    outcome = runner.run(CellArray(parameters), "array_timing", instructions(parameters, products), idle=0, busy=0)
    measured = [outcome.spans[at][1] - outcome.spans[0][0] for at in range(len(products))]
    return measured, golden.schedule(parameters, [(*each[:3], parameters.interval(*each[3:])) for each in products])
