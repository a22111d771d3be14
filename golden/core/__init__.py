"""The training core: its parameters, its programs, and what they compute.

Source: numerics contract, section 15.
"""

from .compiler import compiled, reading
from .host import CoreResult, RunHost
from .instructions import UNITS, Instruction, decode, encode
from .layout import Run, measuring, require_runs, trainer_of
from .model import Core, Host
from .parameters import TrainerParameters
from .plan import Plan, plan
from .program import Program, assemble
from .report import COUNTED, ERRORS, REPORT
from .run import train
from .sequencer import Issue, Sequencer
from .timing import Cycles, Timeline, step_cycles, training_cycles, work_of
from .views import Taps, View, Window

__all__ = [
    "COUNTED", "ERRORS", "REPORT", "UNITS", "Core", "CoreResult", "Cycles", "Host", "Instruction", "Issue", "Plan",
    "Program", "Run", "RunHost", "Sequencer", "Taps", "Timeline", "TrainerParameters", "View", "Window", "assemble",
    "compiled", "decode", "encode", "measuring", "plan", "reading", "require_runs", "step_cycles", "train",
    "trainer_of", "training_cycles", "work_of",
]
