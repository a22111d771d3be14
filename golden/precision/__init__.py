"""Precision control: how many magnitude bits each tensor of a training run gets, and what that costs.

Source: numerics contract, section 3: constant, cyclic after CPT (arXiv 2101.09868) and adaptive after FAST
(arXiv 2110.15456). A width is that of magnitudes in block floating point, without the sign. CPT's own bits are those of
integers: the change is ours.
"""

from .chunks import (
    FRACTION,
    NARROW,
    WIDE,
    chunk_sums,
    chunks_of,
    decide,
    ratio,
    sum_chunks,
    sum_limit,
    threshold_code,
)
from .control import Control, array_of, range_test
from .costs import cost, saving
from .cycles import breakpoints
from .policies import POLICIES, Adaptive, Constant, Cyclic, Policies, Policy, Rising, parse
from .units import AdaptiveParameters, CyclicParameters, adaptive, cyclic

__all__ = [
    "FRACTION", "NARROW", "POLICIES", "WIDE", "Adaptive", "AdaptiveParameters", "Constant", "Control", "Cyclic",
    "CyclicParameters", "Policies", "Policy", "Rising", "adaptive", "array_of", "breakpoints", "chunk_sums",
    "chunks_of", "cost", "cyclic", "decide", "parse", "range_test", "ratio", "saving", "sum_chunks", "sum_limit",
    "threshold_code",
]
