"""A training run: linear and convolutional layers, batch statistics, ReLU, pooling, cross-entropy, SGD or Madam.

Every bit that reaches a weight comes from single IEEE operations on float16, float32 or float64 in an order fixed here.
So a run ends with the same digest on every machine. No float matrix product, sum, exp or log of NumPy is on that path:
their last bit is the machine's.
"""

from .checkpoint import Checkpoint, checkpoint
from .layers import Convolution, Linear
from .models import MAX_LAYERS, MODELS, Model, convolutional, find_model, perceptron, read_model
from .passes import (
    GEMMS,
    HEAD,
    MEASURED,
    UPDATE,
    Gemms,
    cross_entropies,
    draws_of,
    forward,
    gradients,
    normalise,
    normalise_gradient,
    relu,
    softmax_gradient,
)
from .pooling import Pool
from .run import MAX_SEED, TESTED, Epoch, Result, check, precision_range, train
from .state import State, digest
from .weights import LogWeights, Narrow, Plain, initialise, sgd

__all__ = [
    "GEMMS", "HEAD", "MAX_LAYERS", "MAX_SEED", "MEASURED", "MODELS", "TESTED", "UPDATE", "Checkpoint", "Convolution",
    "Epoch", "Gemms", "Linear", "LogWeights", "Model", "Narrow", "Plain", "Pool", "Result", "State", "check",
    "checkpoint", "convolutional", "cross_entropies", "digest", "draws_of", "find_model", "forward", "gradients",
    "initialise", "normalise", "normalise_gradient", "perceptron", "precision_range", "read_model", "relu", "sgd",
    "softmax_gradient", "train",
]
