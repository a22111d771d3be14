"""Reads the space softmax-guideline: the least bits of errors that keep a network within half a point of FP32's.

``narrowgauge explore softmax-guideline`` trains; it goes on after a stop, and takes a cluster. Then run ``python
docs/softmax_guideline.py build/explore/softmax-guideline/explore.json``. The output has a line for each data set and
rounding: the least bits from which on all medians are within half a point, and the bound of `lost` there. Last comes
the guideline ceil(log2 classes) + k that holds for all.
"""

import json
import sys
from pathlib import Path

from narrowgauge.golden.rounding import KINDS
from narrowgauge.golden.softmax import SoftmaxParameters, lost

NEAR = 0.005  # of the accuracy


def classes_of(data):
    """Return the classes of a data set."""
    return 26 if data == "letter" else int(data.removeprefix("clusters-"))


def least_bits(rows):
    """Return {(data, rounding): bits}: the least from which on all medians are near FP32's; None if there are none."""
    base, narrow = {}, {}
    for row in rows:
        settings, accuracy = row["settings"], (row["accuracy"] or {"median": 0.0})["median"]
        if "softmax_bits" in settings:
            by_bits = narrow.setdefault((settings["data"], settings["softmax_rounding"]), {})
            by_bits[settings["softmax_bits"]] = accuracy
        else:
            base[settings["data"]] = accuracy
    found = {}
    for (data, rounding), by_bits in narrow.items():
        good = None
        for bits in sorted(by_bits, reverse=True):
            if abs(by_bits[bits] - base[data]) > NEAR:
                break
            good = bits
        found[data, rounding] = good
    return found


def told(found):
    """Return lines for people."""
    lines = ["data            rounding    bits  can be lost"]
    for (data, rounding), bits in found.items():
        share = lost(SoftmaxParameters(classes=classes_of(data), rounding=rounding, bits=bits)) if bits else None
        lines.append(f"{data:<15} {rounding:<11} {bits or '-':>4}  {'' if share is None else f'{share:.4f}'}")
    for rounding in KINDS:
        rows = [(classes_of(data), bits) for (data, kind), bits in found.items() if kind == rounding]
        if rows and all(bits for _, bits in rows):
            more = max(bits - (classes - 1).bit_length() for classes, bits in rows)
            lines.append(f"{rounding}: ceil(log2 classes) + {more} bits hold for all; so do {max(b for _, b in rows)}")
        elif rows:
            lines.append(f"{rounding}: none holds for all")
    return "\n".join(lines)


if __name__ == "__main__":
    print(told(least_bits(json.loads(Path(sys.argv[1]).read_text())["rows"])))
