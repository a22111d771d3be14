"""The array's golden model against the matrix products of the number systems, and against NumPy's indexing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from narrowgauge.golden import array, blockfloat, floating, logarithmic, network, recipes, systems
from narrowgauge.golden.accumulator import RECURRENCE
from narrowgauge.golden.array import ArrayModel, ArrayParameters, Operand, Product
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import Stream

ROUNDINGS = (NEAREST, TRUNCATE, stochastic(8))
SHAPES = [(1, 1, 1), (5, 7, 16), (20, 33, 40), (64, 10, 65)]


def place(model, block, matrix, transposed, mode=None):
    """Store a matrix, or its transpose, and return the operand that means the matrix."""
    stored = matrix.T if transposed else matrix
    group = model.parameters.system.group
    stride = -(-stored.shape[1] // group) + 1  # with a gap, as of a part of a larger matrix
    model.store(block, stride, stored)
    return Operand(block, stride, transposed, mode or {})


def matrices(seed, m, n, k):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(rows, k)) * 2.0 ** rng.integers(-6, 6, (rows, k))).astype(np.float32) for rows in (m, n)]


@pytest.mark.parametrize("sides", [(False, False), (False, True), (True, True), (True, False)])
@pytest.mark.parametrize("shape", SHAPES)
def test_block_floating_point_products(shape, sides):
    m, n, k = shape
    x, y = matrices(1, *shape)
    for precisions in ((2, 2), (3, 4), (4, 2)):
        for kinds in ((0, 0), (1, 2), (2, 2)):
            model = ArrayModel(ArrayParameters("bfp", memory=1 << 16))
            operands, blocks = [], []
            for side, (matrix, transposed, precision, kind) in enumerate(zip((x, y), sides, precisions, kinds)):
                mode = {"precision": precision, "rounding": kind}
                operands.append(place(model, 100 * side, matrix, transposed, mode))
                words = Stream(1, 16, step=7, use=4 + side)
                blocks.append(blockfloat.quantise(matrix, replace(PRESETS["fast-4"], mantissa=precision), axis=1,
                                                  rounding=ROUNDINGS[kind], random=words))
            codes = model.multiply(Product(m, n, k, *operands, use=4, step=7))
            b = replace(blocks[1], axis=0)
            assert np.array_equal(PRESETS["fp32"].decode(codes), blockfloat.matmul(blocks[0], b))


@pytest.mark.parametrize("name, mode", [("bfp", {"rounding": 2}), ("bfp", {}), ("lns", {}), ("float", {}),
                                        ("int8", {})])
def test_one_converter_makes_the_same_products(name, mode):
    shape = (40, 20, 24)
    x, y = (each / 64 for each in matrices(10, *shape))
    found = []
    for converters in (1, 2):
        model = ArrayModel(ArrayParameters(name, converters=converters))
        found.append(model.multiply(Product(*shape, place(model, 0, x, False, mode), place(model, 15, y, True, mode))))
    assert np.array_equal(*found)


def test_parts_of_a_product_have_the_words_of_the_whole():
    """In rows, columns and along k, with both operands rounded stochastically; and another step has others."""
    m, n, k = 9, 20, 56
    x, y = matrices(2, m, n, k)
    model, mode = ArrayModel(ArrayParameters("bfp", memory=1 << 14)), {"precision": 3, "rounding": 2}
    a, b = (place(model, 20 * side, each, False, mode) for side, each in enumerate((x, y)))
    whole = model.multiply(Product(m, n, k, a, b, use=2, step=3))
    assert not np.array_equal(whole, model.multiply(Product(m, n, k, a, b, use=2, step=4)))
    assert not np.array_equal(whole, model.multiply(Product(m, n, k, a, b, use=4, step=3)))
    # Rows from 16 on are in the next block of rows, and their first vector is 16 rows of 4 vectors on.
    right = model.multiply(Product(m, 4, k, a, replace(b, block=b.block + b.stride, vector=64), use=2, step=3))
    assert np.array_equal(right, whole[:, 16:])
    parts = [model.multiply(Product(m, 16, size, replace(a, block=a.block + start, vector=start),
                                    replace(b, block=b.block + start, vector=start), start == 0, start == 2, 2, 3, 4))
             for start, size in ((0, 32), (2, 24))]
    assert parts[0] is None and np.array_equal(parts[1], whole[:, :16])


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_logarithmic_products(shape):
    x, y = matrices(3, *shape)
    model, operands, logs = ArrayModel(ArrayParameters("lns", memory=1 << 16)), [], []
    for side, matrix in enumerate((x, y)):
        logs.append(logarithmic.quantise(matrix, PRESETS["lns8"]))
        mode = {"scale": logs[-1].scale + logarithmic.SCALE_BIAS}
        operands.append(place(model, 100 * side, matrix, bool(side), mode))
    codes = model.multiply(Product(*shape, *operands))
    expected, _ = logarithmic.matmul(*[logs[0], logs[1].T], model.parameters.system.cell(2))
    assert np.array_equal(PRESETS["fp32"].decode(codes), expected)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_floating_point_products(shape):
    x, y = (matrix / 64 for matrix in matrices(4, *shape))
    model = ArrayModel(ArrayParameters("float"))
    operands = [place(model, 4000 * side, matrix, bool(side)) for side, matrix in enumerate((x, y))]
    found = PRESETS["fp16"].decode(model.multiply(Product(*shape, *operands)))
    x, y = (PRESETS["fp16"].round(matrix) for matrix in (x, y))
    assert np.array_equal(found, floating.matmul(x, y.T))


def test_a_work_format_of_another_kind_is_cast():
    x, y = matrices(5, 3, 4, 7)
    model = ArrayModel(ArrayParameters(floating.FloatSystem(format=PRESETS["fp8-e5m2"], work=PRESETS["fp32"])))
    codes = model.multiply(Product(3, 4, 7, place(model, 0, x, False), place(model, 4000, y, False)))
    x, y = (PRESETS["fp8-e5m2"].round(each) for each in (x, y))
    assert np.array_equal(PRESETS["fp16"].decode(codes), floating.matmul(x, y.T))


def test_one_copy_of_each_tensor_serves_the_three_products_of_training():
    """A layer's GEMMs in `network.Gemms` and on the array, each operand where it is stored once."""
    rng = np.random.default_rng(6)
    x, w, delta = (rng.normal(size=shape).astype(np.float32) for shape in ((32, 40), (10, 40), (32, 10)))
    recipe = recipes.make("bfp", mantissa=4, gradients_mantissa=2)
    gemms = network.Gemms(recipe, 3)
    model = ArrayModel(ArrayParameters(blockfloat.BFPSystem(seed=3), memory=1 << 14))
    where, block = {}, 0
    for kind, matrix in (("activations", x), ("weights", w), ("gradients", delta)):
        stride = -(-matrix.shape[1] // 16)
        model.store(block, stride, matrix)
        where[kind] = block, stride
        block += stride * -(-len(matrix) // 16)
    tensors = {"activations": x, "weights": w, "gradients": delta}
    for gemm, uses in network.GEMMS.items():
        expected = gemms.product(gemm, 1, *(tensors[kind] for kind, _ in uses), 5)
        operands, sizes = [], []
        for kind, axis in uses:
            operands.append(Operand(*where[kind], axis == 0, recipe.mode(kind)))
            sizes.append(tensors[kind].shape)
        (m, k), (n, _) = (shape if axis == 1 else shape[::-1] for shape, (_, axis) in zip(sizes, uses))
        # Of the run's seed, the step, and layer 1's operands: the words of the training.
        use = network.draws_of(3, 1, 2 * list(network.GEMMS).index(gemm), 5).use
        codes = model.multiply(Product(m, n, k, *operands, use=use, step=5))
        assert np.array_equal(PRESETS["fp32"].decode(codes), expected), gemm


def test_the_memory_wraps_and_keeps_rows_and_columns():
    model = ArrayModel(ArrayParameters(blockfloat.BFPSystem(group=4), memory=64, buffer=64))  # 4 blocks
    rng = np.random.default_rng(7)
    rows = rng.integers(0, 1 << 32, (16, 4))
    for at, row in enumerate(rows):
        model.write(at // 4, at % 4, False, row)
    assert np.array_equal(model.vectors(Operand(3, 1), 9, 4)[:, 0], rows[(12 + np.arange(9)) % 16])
    assert np.array_equal(model.vectors(Operand(1, 1, True), 4, 4)[:, 0], rows[4:8].T)
    model.write(2, 1, True, [1, 2, 3, 4])
    assert model.memory[2, :, 1].tolist() == [1, 2, 3, 4] and np.array_equal(model.memory[2, :, 2], rows[8:12, 2])
    assert model.vectors(Operand(2, 1, True), 2, 3)[1, 0].tolist() == [1, 2, 3, 0]


def test_status():
    model = ArrayModel(ArrayParameters("bfp"))
    model.store(0, 1, np.full((2, 3), np.nan))
    model.multiply(Product(1, 1, 3, Operand(10), Operand(11)))
    assert (model.invalid, model.overflow) == (False, False)
    model.multiply(Product(1, 1, 3, Operand(0), Operand(11)))
    assert (model.invalid, model.overflow) == (True, True)
    model = ArrayModel(ArrayParameters(blockfloat.BFPSystem(accumulator=PRESETS["fp16"])))
    model.store(0, 1, np.full((1, 4), 300.0))
    model.multiply(Product(1, 1, 4, Operand(0), Operand(0)))
    assert (model.invalid, model.overflow) == (False, True)


# Order and time.


@pytest.mark.parametrize(("rows", "columns", "sums"), [(1, 1, 2), (4, 4, 16), (3, 5, 8), (2, 16, 4)])
def test_every_result_leaves_once_and_in_tiles(rows, columns, sums):
    p = ArrayParameters("bfp", rows=rows, columns=columns, sums=sums)
    down, across = p.tile
    assert down * across == sums
    for m, n in ((1, 1), (17, 50), (64, 64)):
        row, column = array.transfers(p, m, n)
        assert sorted(zip(row, column)) == [(i, j) for i in range(-(-m // rows)) for j in range(-(-n // columns))]
        tile = row // down * 10**6 + column // across
        assert (np.diff(tile) >= 0).all()
        assert (np.diff(row * 10**6 + column)[np.diff(tile) == 0] > 0).all()


@pytest.mark.parametrize("precision", [2, 3, 4])
def test_at_least_nine_tenths_of_the_peak(precision):
    """For 64 x 64 x 64; the simulation counts the same cycles (tests/hw/test_array.py)."""
    p, mode = ArrayParameters("bfp"), {"precision": precision}
    assert array.peak(p, mode, mode) == 256 / ((precision + 1) // 2) ** 2
    assert 64**3 / array.peak(p, mode, mode) / array.cycles(p, 64, 64, 64, mode, mode) > 0.9
    # One converter for both sides: the first product waits longer for its first tile, those behind it do not.
    single = replace(p, converters=1)
    ends = array.schedule(single, [(64, 64, 64, ((precision + 1) // 2) ** 2)] * 3)
    assert (64**3 / array.peak(p, mode, mode) / np.diff(ends) > 0.98).all()
    for name in ("lns", "float"):
        p = ArrayParameters(name)
        assert 64**3 / array.peak(p) / array.cycles(p, 64, 64, 64) > 0.9


def test_time_is_that_of_the_transfers_and_of_what_they_wait_for():
    p = ArrayParameters("bfp")
    narrow = {"precision": 2}
    base = array.cycles(p, 16, 16, 16, narrow, narrow)
    # One tile: every further group of 16 sums takes 16 cycles of the cells, and 16 of each side's converter.
    assert array.cycles(p, 16, 16, 32, narrow, narrow) - base == 16 + 16
    # Four passes instead of one.
    wide = {"precision": 4}
    assert array.cycles(p, 16, 16, 16, wide, wide) - base == 3 * 16
    # Fewer sums than an addition takes cycles: they wait for each other, after a conversion more.
    one = [array.cycles(p, 1, 1, 16 * k, narrow, narrow) for k in (1, 2, 3)]
    assert np.diff(one).tolist() == [1 + RECURRENCE] * 2


def test_products_that_follow_each_other_overlap():
    p = ArrayParameters("bfp")
    first, *rest = array.schedule(p, [(64, 64, 64, 1)] * 4)
    steps = np.diff([first, *rest])
    assert (steps < first).all() and (steps >= 1024).all() and (1024 / steps > 0.99).all()


@pytest.mark.parametrize("name", ["bfp", "lns", "int8"])
@pytest.mark.parametrize("sizes", [(5, 7, 9), (100, 1000, 100), (70000, 3, 20), (33, 40, 3000), (3, 2, 100000)])
def test_split_covers_a_product_once_and_each_part_fits(name, sizes):
    p = ArrayParameters(name, buffer=1024)
    parts = array.split(p, *sizes)
    for part, first, last in parts:
        Product(*part, first=first, last=last).fits(p)
    assert sum(m * n * k for (m, n, k), _, _ in parts) == np.prod(sizes)
    # Parts along k follow each other, from a first one to a last one.
    assert [first for _, first, _ in parts] == [True, *(last for _, _, last in parts[:-1])]
    assert parts[-1][2] and (len(parts) == 1) == (sizes == (5, 7, 9))
    whole = array.peak(p) * array.cycles(p, *sizes) if np.prod(sizes) < 10**7 else np.inf
    assert whole >= np.prod(sizes)


@pytest.mark.parametrize("buffer", [32, 64])
def test_split_makes_tiles_as_small_as_the_buffers(buffer):
    """A row of cells that holds fewer vectors than it has sums gets fewer rows of a tile."""
    p = ArrayParameters("bfp", buffer=buffer)
    parts = array.split(p, 35, 20, 70)
    for part, first, last in parts:
        Product(*part, first=first, last=last).fits(p)
    assert sum(m * n * k for (m, n, k), _, _ in parts) == 35 * 20 * 70


@pytest.mark.parametrize("name", ["bfp", "lns", "float", "int8"])
def test_parts_of_a_product_make_the_product(name):
    p = ArrayParameters(name)
    m, n = (rows * sums for rows, sums in zip((p.rows, p.columns), p.open_tile))
    x, y = (each / 256 for each in matrices(11, m, n - 1, 70))
    whole = ArrayModel(p)
    operands = place(whole, 0, x, False), place(whole, 15 if name != "float" else 4000, y, False)
    expected = whole.multiply(Product(m, n - 1, 70, *operands))
    parts, cuts = ArrayModel(p), (0, 16, 48, 70)
    for start, end in zip(cuts, cuts[1:]):
        operands = [place(parts, block, each[:, start:end], False)
                    for block, each in ((0, x), (15 if name != "float" else 4000, y))]
        codes = parts.multiply(Product(m, n - 1, end - start, *operands, first=start == 0, last=end == 70))
        assert (codes is None) == (end < 70)
    assert np.array_equal(codes, expected)
    with pytest.raises(ValueError, match="^m and n is"):
        parts.multiply(Product(m, n - 1, 4, *operands, first=False))
    with pytest.raises(ValueError, match=f"^m is {m + 1}; allowed: at most {m} in a part of a product"):
        parts.multiply(Product(m + 1, n - 1, 4, *operands, last=False))


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "array.md").read_text()
    lines = page.split("The golden model does the same:\n\n")[1].split("\n\n")[0].splitlines()
    x, w = np.random.default_rng(1).normal(size=(42, 64)).astype(np.float32)[:32], np.ones((10, 64), np.float32)
    space = {"x": x, "w": w}
    exec("\n".join(line[4:] for line in lines), space)
    fmt = PRESETS["fast-4"]
    expected = blockfloat.matmul(blockfloat.quantise(x, fmt), blockfloat.quantise(w.T, fmt, axis=0))
    assert np.array_equal(PRESETS["fp32"].decode(space["codes"]), expected)


# Parameters.


@pytest.mark.parametrize("parameters", [
    ArrayParameters(), ArrayParameters("lns", rows=2, sums=4), ArrayParameters("float", memory=16),
    ArrayParameters(blockfloat.BFPSystem(group=4, accumulator=Float(6, 9), seed=9), columns=8, buffer=512)])
def test_json_and_back(parameters):
    text = json.dumps(parameters.to_json())
    assert ArrayParameters.from_json(text) == parameters
    assert json.loads(text)["system"] in systems.SYSTEMS


@pytest.mark.parametrize(("settings", "message"), [
    ({"system": "posit"}, "system is 'posit'; allowed: bfp, mx, lns, float, bf16, fp8, int8, plain"),
    ({"system": 3}, "system is 3; allowed"),
    ({"rows": 0}, "rows is 0; allowed: an integer from 1 to 16"),
    ({"columns": 17}, "columns is 17"),
    ({"sums": 3}, "sums is 3; allowed: 2, 4, 8, 16"),
    ({"converters": 3}, "converters is 3; allowed: an integer from 1 to 2"),
    ({"group": 12}, "group is 12; allowed: a power of two up to 64, in an array"),
    ({"memory": 128}, "memory is 128; allowed: a power of two from 256 to 1048576"),
    ({"memory": 3000}, "memory is 3000"),
    ({"buffer": 8}, "buffer is 8; allowed: a power of two from 32 to 65536"),
    ({"system": "lns", "mantissa": 4}, "parameter is 'mantissa'; allowed: system, rows"),
    ({"mantissa": 9}, "mantissa is 9; allowed: an integer from 2 to 8"),
    ({"seed": 2**31}, "seed is 2147483648; allowed"),
])
def test_bad_parameters(settings, message):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        ArrayParameters.from_json(settings)


@pytest.mark.parametrize(("sizes", "message"), [
    ((0, 1, 1), "m is 0"), ((1, 1 << 16, 1), "n is 65536"), ((1, 1, 1.5), "k is 1.5"),
    ((64, 1, 257), "k is 257; allowed: at most 256, because a row of cells holds 64 vectors, for 4 results down"),
    ((1, 33, 128), "n is 33; allowed: at most 32 with k = 128, because a column of cells holds 64 vectors"),
])
def test_products_that_do_not_fit(sizes, message):
    with pytest.raises(ValueError, match="^" + message):
        ArrayModel(ArrayParameters(buffer=1024)).multiply(Product(*sizes))


def test_modes_are_checked():
    with pytest.raises(ValueError, match="^precision is 8; allowed: an integer from 0 to 7"):
        ArrayModel(ArrayParameters()).multiply(Product(1, 1, 1, Operand(mode={"precision": 8})))
    with pytest.raises(ValueError, match="^mode is 'scale'; allowed: precision, rounding"):
        ArrayModel(ArrayParameters()).multiply(Product(1, 1, 1, Operand(mode={"scale": 8})))
