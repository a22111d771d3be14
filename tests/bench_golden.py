"""One-core speeds of golden block floating point and logarithmic numbers, beside other software where it is installed.

Run ``python tests/bench_golden.py``. Each figure is the median of five runs in CPU time of the
process, so that other load matters little. The peers do the nearest thing they offer, which the
row says; none of them gives the same bits.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["APYTYPES_THREADS"] = "1"

import importlib
import platform
import statistics
import time

import numpy as np
from narrowgauge.golden import blockfloat, logarithmic
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import Stream, counted

ELEMENTS, SIDE, GROUP = 1 << 22, 256, 16
FORMAT = PRESETS["fast-4"]


def median(work, repeat=5):
    """CPU seconds of one run of `work`, after one run to warm up."""
    times = []
    for _ in range(repeat + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def report(name, unit, count, make):
    """Print the speed of what `make()` returns, or that a module it imports is missing."""
    try:
        work = make()
    except ImportError as error:
        print(f"  {name:58} not installed ({error.name})", flush=True)
        return
    print(f"  {name:58} {count / median(work) / 1e6:8.1f} {unit}/s", flush=True)


def quantisers(x):
    """Rows of the first table."""
    rows = x.reshape(-1, GROUP)

    def ours(rounding, stream=None):
        return lambda: lambda: blockfloat.quantise(rows, FORMAT, rounding=rounding, random=stream)

    def qtorch(rounding):
        quant, torch = importlib.import_module("qtorch.quant"), importlib.import_module("torch")
        torch.set_num_threads(1)
        tensor = torch.from_numpy(rows)
        return lambda: quant.block_quantize(tensor, wl=FORMAT.mantissa + 1, dim=0, rounding=rounding)

    def microxcaling():
        torch, ops = importlib.import_module("torch"), importlib.import_module("mx.mx_ops")
        torch.set_num_threads(1)
        tensor = torch.from_numpy(rows)
        return lambda: ops._quantize_mx(tensor, 8, "int8", shared_exp_method="max", axes=[-1], block_size=GROUP,
                                        round="even", custom_cuda=False)

    def gfloat():
        module, formats = importlib.import_module("gfloat"), importlib.import_module("gfloat.formats")

        def work():
            scale = np.exp2(np.floor(np.log2(np.abs(rows).max(axis=1, keepdims=True))))
            return module.round_ndarray(formats.format_info_ocp_int8, rows / scale, sat=True) * scale

        return work

    def apytypes():
        array = importlib.import_module("apytypes").APyFloatArray.from_array(x, exp_bits=8, man_bits=23)
        return lambda: array.cast(exp_bits=4, man_bits=3)

    def loop():
        def work():
            exponent = np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1] - 1
            shift = FORMAT.mantissa - 1 - exponent
            return np.clip(np.rint(np.ldexp(rows, shift)), -15, 15).astype(np.int8), exponent

        return work

    return [
        ("narrowgauge, nearest", ours(NEAREST)),
        ("narrowgauge, truncate", ours(TRUNCATE)),
        ("narrowgauge, stochastic, random words included", ours(stochastic(8), Stream(1, GROUP))),
        ("  of which the random words", lambda: lambda: counted(1, GROUP, 0, len(rows))),
        ("plain NumPy, nearest", loop),
        ("qtorch block_quantize, nearest", lambda: qtorch("nearest")),
        ("qtorch block_quantize, stochastic", lambda: qtorch("stochastic")),
        ("microxcaling _quantize_mx, MXINT8, even", microxcaling),
        ("gfloat round_ndarray, MXINT8, scales by NumPy", gfloat),
        ("apytypes cast to e4m3 (no shared exponent)", apytypes),
    ]


def products(a, b):
    """Rows of the second table."""
    blocks_a, blocks_b = blockfloat.quantise(a, FORMAT), blockfloat.quantise(b, FORMAT, axis=0)
    zero = a.copy()
    zero[:, :GROUP] = 0
    padded = blockfloat.quantise(zero, FORMAT)

    def ours(accumulator, left=blocks_a):
        return lambda: lambda: blockfloat.matmul(left, blocks_b, PRESETS[accumulator])

    def loop(narrow):
        qa = np.ascontiguousarray(np.moveaxis(blocks_a.mantissas, 1, 0)).astype(np.int32)
        qb = np.ascontiguousarray(np.transpose(blocks_b.mantissas, (1, 2, 0))).astype(np.int32)
        scale_a, scale_b = (np.exp2(np.float32(blocks.exponents) - 130) for blocks in (blocks_a, blocks_b))

        def work():
            total = np.zeros((SIDE, SIDE), np.float32)
            for k in range(len(qa)):
                total += (qa[k] @ qb[k]).astype(np.float32) * scale_a[:, k, np.newaxis] * scale_b[:, k]
                total = narrow(total)
            return total

        return work

    def cast(dtype):
        return lambda total: total.astype(dtype).astype(np.float32)

    def gfloat(name):
        module, formats = importlib.import_module("gfloat"), importlib.import_module("gfloat.formats")
        return loop(lambda total: module.round_ndarray(getattr(formats, name), total))

    def apytypes(exponent, mantissa):
        module = importlib.import_module("apytypes")
        left, right = (module.APyFloatArray.from_array(x, exp_bits=8, man_bits=3) for x in (a, b))

        def work():
            with module.APyFloatAccumulatorContext(exp_bits=exponent, man_bits=mantissa):
                return left @ right

        return work

    return [
        ("narrowgauge, fp32 accumulator", ours("fp32")),
        ("narrowgauge, fp32 accumulator, all-zero groups", ours("fp32", padded)),
        ("narrowgauge, bf16 accumulator", ours("bf16")),
        ("narrowgauge, fp16 accumulator", ours("fp16")),
        ("plain NumPy int32 loop over groups, float32 added", lambda: loop(lambda total: total)),
        ("same, then cast to bfloat16 by ml_dtypes (rounds twice)",
         lambda: loop(cast(importlib.import_module("ml_dtypes").bfloat16))),
        ("same, then cast to float16 (rounds twice)", lambda: loop(cast(np.float16))),
        ("same, then gfloat to bfloat16 (rounds twice)", lambda: gfloat("format_info_bfloat16")),
        ("apytypes, e8m3 operands, fp32 at every product", lambda: apytypes(8, 23)),
        ("apytypes, e8m3 operands, bf16 at every product", lambda: apytypes(8, 7)),
    ]


def logarithms(x, a, b):
    """Rows of the third table, each with its unit and count."""
    fmt = PRESETS["lns8"]

    def loop():
        def work():
            with np.errstate(divide="ignore"):
                level = np.rint(fmt.gamma * np.log2(np.abs(x)))
            t = np.clip(level - level.max() + fmt.top, 0, fmt.top)
            return t.astype(np.uint8) | np.signbit(x).astype(np.uint8) << (fmt.bits - 1)

        return work

    def ours(**settings):
        left, right = logarithmic.quantise(a, fmt), logarithmic.quantise(b, fmt)
        p = logarithmic.LNSDotParameters(**settings)
        return lambda: lambda: logarithmic.matmul(left, right, p)

    def floats():
        left, right = (logarithmic.quantise(each, fmt).values().astype(np.float32) for each in (a, b))
        return lambda: left @ right

    elements, macs = ("M elements", ELEMENTS), ("M MACs", SIDE**3)
    return [
        ("narrowgauge, quantise", *elements, lambda: lambda: logarithmic.quantise(x, fmt)),
        ("plain NumPy log2 (not exact)", *elements, loop),
        ("narrowgauge, product, nothing can saturate", *macs, ours()),
        ("narrowgauge, product, direct, 33-bit sums", *macs, ours(accumulator=33)),
        ("narrowgauge, product, bins of 33 bits", *macs, ours(accumulator=33, accumulation="bins")),
        ("plain NumPy, product of the values in float32", *macs, floats),
    ]


def main():
    """Print all tables."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}, one core, median of 5")
    rng = np.random.default_rng(1)
    print(f"quantise {ELEMENTS} float32, groups of {GROUP}, {FORMAT.mantissa} magnitude bits")
    for name, make in quantisers(rng.standard_normal(ELEMENTS, dtype=np.float32)):
        report(name, "M elements", ELEMENTS, make)
    print(f"matrix product {SIDE}^3, groups of {GROUP}, one rounding per group")
    a, b = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    for name, make in products(a, b):
        report(name, "M MACs", SIDE**3, make)
    print(f"logarithmic numbers, 8 bits, gamma 8: {ELEMENTS} float32, matrix product {SIDE}^3")
    for row in logarithms(rng.standard_normal(ELEMENTS, dtype=np.float32), a, b):
        report(*row)


if __name__ == "__main__":
    main()
