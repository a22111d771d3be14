"""The training core: its parameters, its programs, and what they compute.

Source: numerics contract, section 15.
"""

from .compiler import Run, compiled, require_runs, trainer_of
from .instructions import Instruction, decode, encode
from .model import Core, Host
from .parameters import TrainerParameters
from .program import Program, assemble
from .run import CoreResult, train
from .sequencer import Issue, Sequencer, View

__all__ = [
    "Core", "CoreResult", "Host", "Instruction", "Issue", "Program", "Run", "Sequencer", "TrainerParameters", "View",
    "assemble", "compiled", "decode", "encode", "require_runs", "train", "trainer_of",
]
