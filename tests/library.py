"""A library of standard cells of our own, in Liberty: its figures are round, and belong to no process.

A gate's delay is its own and 1 ns per pF, whatever the transition of its input. Its transition is 0.1 ns and 1 ns per
pF. Each change takes the same internal energy.
"""

from pathlib import Path

__all__ = ["GATES", "SMALL"]

# Name, area, inputs, function, sense, delay of a rise and of a fall in ns, internal energy of a rise and a fall in pJ.
GATES = [
    ("BUF", 2, "A", "A", "positive_unate", 0.2, 0.2, 0.03, 0.03),
    ("INV", 1, "A", "!A", "negative_unate", 0.1, 0.1, 0.01, 0.01),
    ("NAND", 2, "AB", "!(A B)", "negative_unate", 0.2, 0.1, 0.02, 0.04),
    ("NOR", 2, "AB", "!(A+B)", "negative_unate", 0.3, 0.1, 0.02, 0.02),
    ("XOR", 4, "AB", "A^B", "non_unate", 0.3, 0.4, 0.05, 0.07),
    ("AOI", 3, "ABC", "!((A B)+C)", "negative_unate", 0.3, 0.2, 0.03, 0.05),
]
PIN = "    pin ({name}) {{ direction : input; capacitance : 0.01; }}\n"
GATE = """\
  cell ({name}) {{
    area : {area};
{pins}    pin (Y) {{ direction : output; function : "{function}";
{arcs}      internal_power () {{ related_pin : "{related}";
        rise_power (energy) {{ values ("{up}, {up}", "{up}, {up}"); }}
        fall_power (energy) {{ values ("{down}, {down}", "{down}, {down}"); }} }} }}
  }}
"""
# ABC ends without a word where one group tells of two pins.
ARC = """\
      timing () {{ related_pin : "{pin}"; timing_sense : {sense};
        cell_rise (flat) {{ values ("{rise}, {rise}", "{rise_1}, {rise_1}"); }}
        rise_transition (flat) {{ values ("0.1, 0.1", "1.1, 1.1"); }}
        cell_fall (flat) {{ values ("{fall}, {fall}", "{fall_1}, {fall_1}"); }}
        fall_transition (flat) {{ values ("0.1, 0.1", "1.1, 1.1"); }} }}
"""


def _gate(name, area, inputs, function, sense, rise, fall, up, down):
    arcs = "".join(ARC.format(pin=pin, sense=sense, rise=rise, fall=fall, rise_1=rise + 1, fall_1=fall + 1)
                   for pin in inputs)
    return GATE.format(name=name, area=area, function=function, related=" ".join(inputs), up=up, down=down, arcs=arcs,
                       pins="".join(PIN.format(name=pin) for pin in inputs))


SMALL = (Path(__file__).parent / "synth" / "small.lib").read_text().replace(
    "@GATES@\n", "".join(_gate(*row) for row in GATES))
