"""The array of cells."""

from ..golden import array as golden
from ..hw import array as hw
from ..sim import array as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES", "FP16", "LNS", "NARROW"]

NARROW = {"work": "bf16", "accumulator": "bf16", "memory": 16384, "converters": 1}
LNS = NARROW | {"system": "lns", "sum_bits": 24, "lsb": 16}
FP16 = {"system": "float", "buffer": 2048, "converters": 1}

ENTRIES = (
    Unit(
        "array", "matrix products of a number system on a grid of cells, from a memory read down or across",
        golden.ArrayParameters, hw.CellArray, golden.ArrayModel,
        Bench(sim.array_random, sim.array_recorded, sim.array_vectors),
        small={"group": 4, "rows": 1, "columns": 1, "memory": 64, "buffer": 64, "accumulator": "bf16", "work": "bf16"},
        corners=({"group": 4, "rows": 1, "columns": 2, "memory": 32, "buffer": 16, "sums": 2},
                 {"system": "lns", "lanes": 4, "rows": 2, "columns": 1, "memory": 64, "buffer": 16, "converters": 1},
                 {"system": "float", "rows": 2, "columns": 3, "memory": 16, "buffer": 16, "work": "bf16"},
                 {"system": "int8", "lanes": 4, "rows": 2, "columns": 2, "memory": 64, "buffer": 16},
                 {"system": "mx", "block": 8, "lanes": 4, "rows": 1, "columns": 1, "memory": 64, "buffer": 64}),
        shown=(NARROW, FP16, LNS),
        macs=golden.peak,
        chunk_macs=lambda p: p.rows * p.columns * (p.system.cell(p.sums).chunk_macs if p.name == "bfp" else 0),
    ),
)
