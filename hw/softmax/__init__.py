"""The softmax head in hardware: from rows of logits to errors and losses."""

from .head import SoftmaxGrad

__all__ = ["SoftmaxGrad"]
