"""The array: a grid of dot-product cells that makes the three matrix products of training from one memory.

Source: numerics contract, section 12 (the mapping and its order are ours) and the section of the number system.
"""

from .model import ArrayModel, transfers
from .parameters import FETCH, LARGEST, QUEUE, RESULT, SIZE, ArrayParameters, Operand, Product, split
from .schedule import cycles, peak, schedule

__all__ = [
    "FETCH", "LARGEST", "QUEUE", "RESULT", "SIZE", "ArrayModel", "ArrayParameters", "Operand", "Product", "cycles",
    "peak", "schedule", "split", "transfers",
]
