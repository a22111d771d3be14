"""A whole trainer, simulated: its model, its memories beside golden's, and training runs."""

from .comparison import CHECKS, Comparison, Difference, observed
from .model import CoreModel, Stuck
from .training import Differs, Simulated, Simulation

__all__ = ["CHECKS", "Comparison", "CoreModel", "Difference", "Differs", "Simulated", "Simulation", "Stuck", "observed"]
