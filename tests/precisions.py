"""What tests of precision control share."""

import math
from fractions import Fraction

__all__ = ["scalar_sums"]


def scalar_sums(x, group, guard):
    """The sums of r in fractions, from the definition: quantise each group to 4 and to 2 bits, round the sums down."""
    sums, top = [Fraction(0), Fraction(0)], None
    for start in range(0, len(x), group):
        part = [Fraction(float(each)) for each in x[start:start + group]]
        largest = max(abs(each) for each in part)
        if not largest:
            continue
        exponent = math.floor(math.log2(largest))
        wide, narrow = ([abs(each) // Fraction(2) ** (exponent - bits) for each in part] for bits in (3, 1))
        sums[0] += sum(a - 4 * b for a, b in zip(wide, narrow)) * Fraction(2) ** exponent
        sums[1] += sum(narrow) * Fraction(2) ** exponent
        top = exponent if top is None else max(top, exponent)
    return tuple(math.floor(each * Fraction(2) ** (guard - (top or 0))) for each in sums)
