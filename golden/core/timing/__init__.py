"""A model of a core's cycles."""

from .cycles import Cycles, step_cycles, training_cycles
from .timeline import Timeline
from .work import work_of

__all__ = ["Cycles", "Timeline", "step_cycles", "training_cycles", "work_of"]
