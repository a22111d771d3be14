"""The training core: its parameters, its programs, and what they compute.

Source: numerics contract, section 15.
"""

from .compiler import compiled
from .instructions import Instruction, decode, encode
from .layout import Run, require_runs, trainer_of
from .model import Core, Host
from .parameters import TrainerParameters
from .program import Program, assemble
from .run import CoreResult, train
from .sequencer import Issue, Sequencer
from .views import Taps, View, Window

__all__ = [
    "Core", "CoreResult", "Host", "Instruction", "Issue", "Program", "Run", "Sequencer", "Taps", "TrainerParameters",
    "View", "Window", "assemble", "compiled", "decode", "encode", "require_runs", "train", "trainer_of",
]
