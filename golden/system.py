"""What number systems of the array have in common whose operands have one scale and whose cells one sum."""

from .formats import Parameters

__all__ = ["ScaledSystem"]


class ScaledSystem(Parameters):
    """A number system, see `array`, whose instruction gives each operand a scale, exponent + 127, for all its vectors.

    Its cell takes an addition every cycle, so that it needs one sum: the sums of a tile follow each other. To be added:
    the settings, `lanes` among them; `default`, `cell`, `converter`, `convert` and `dot`.
    """

    recurrence = 1
    modes = {"scale": 8}

    def __post_init__(self):
        self.cell(2), self.converter(0)

    @property
    def group(self):
        """Elements of a vector."""
        return self.lanes

    @property
    def depth(self):
        """Cycles from a transfer that a cell accepts to its emitted sum."""
        return self.cell(2).latency

    def interval(self, a, b):
        """Return the cycles that a transfer takes."""
        return 1
