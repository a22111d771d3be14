"""The clock generator of an ECP5, EHXPLLL: which clocks it makes of another."""

from dataclasses import dataclass
from typing import Any

from ...base.checks import require

__all__ = ["PLL", "pll"]

VCO = (400.0, 800.0)    # MHz
PHASE = (10.0, 400.0)   # MHz, of the phase detector
MOST = 128              # of a divider


@dataclass(frozen=True)
class PLL:
    """Dividers of an EHXPLLL, whose output feeds it back.

    Parameters
    ----------
    given, mhz : float
        The clocks that come in and go out.
    reference, feedback, output : int
        The dividers CLKI_DIV, CLKFB_DIV and CLKOP_DIV.
    """

    given: float
    mhz: float
    reference: int
    feedback: int
    output: int

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the primitive that depend on the dividers."""
        return {"CLKI_DIV": self.reference, "CLKFB_DIV": self.feedback, "CLKOP_DIV": self.output,
                "CLKOP_CPHASE": self.output // 2}


def pll(given: float, most: float) -> PLL:
    """Return the fastest clock that is not above `most`, in MHz.

    Of equal clocks the one with the fastest phase detector is returned, and then that with the fastest oscillator.
    """
    found = [
        PLL(given, given * feedback / reference, reference, feedback, output)
        for reference in range(1, MOST + 1) if PHASE[0] <= given / reference <= PHASE[1]
        for feedback in range(1, MOST + 1) if given * feedback / reference <= most
        for output in range(1, MOST + 1) if VCO[0] <= given * feedback / reference * output <= VCO[1]]
    require(len(found) > 0, "clock", most, f"a clock that a PLL makes of {given:g} MHz")
    return max(found, key=lambda each: (each.mhz, -each.reference, each.output))
