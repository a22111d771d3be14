"""Where elements of a core's memories lie in its Verilog."""

from collections import defaultdict

import numpy as np

from ...golden.core import TrainerParameters
from ...hw.core.layouts import Geometry
from ...hw.core.memories import place_of

__all__ = ["Places", "places_of"]

Places = dict[tuple[str, int], list[tuple[str, np.ndarray, np.ndarray]]]


def places_of(parameters: TrainerParameters) -> Places:
    """Return of each (memory, plane) of golden the arrays of the Verilog: a list of (path, elements, addresses).

    Element ``elements[k]``, as `golden.core.views.places` counts, is the word ``addresses[k]`` of the array.
    """
    geometry = Geometry(parameters)
    found: Places = {}
    for memory, plane in (("X", 0), ("D", 0), *(("W", plane) for plane in range(parameters.planes + 1))):
        arrays: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for element in range(parameters.blocks[memory] * parameters.side**2):
            instance, bank, address = place_of(geometry, memory, element, plane)
            arrays[f"{instance}.{bank}_words"].append((element, address))
        found[memory, plane] = [(path, *np.array(pairs).T) for path, pairs in arrays.items()]
    labels = np.arange(parameters.blocks["L"] * 256)
    found["L", 0] = [("labels_words", labels, labels)]
    return found
