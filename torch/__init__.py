"""The golden numbers inside PyTorch: quantisers, layers, optimisers and export, on CPU and wherever torch runs.

Every result here equals that of `golden` to the bit, unless its docstring says otherwise. Needs the extra ``torch``.
"""

if __name__ == "torch":
    # Python looks for modules in the current folder first, and this folder has PyTorch's name.
    raise ImportError("the current folder is narrowgauge's own, whose folder torch hides PyTorch: "
                      "start Python in another folder, or with -P")

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("narrowgauge.torch needs the extra 'torch': pip install 'narrowgauge[torch]'") from error

from ..golden.number_system import Draws
from .convert import Change, Conversion, convert
from .export import Exported, cross_entropy, export
from .layers import Conv1d, Conv2d, Embedding, Flatten, Linear, MultiheadAttention
from .numbers import Numbers
from .optimisers import SGD, AdamW, Madam
from .products import matmul
from .quantise import FORMATS, Encoded, encode, quantise

__all__ = [
    "AdamW", "Change", "Conv1d", "Conv2d", "Conversion", "Draws", "Embedding", "Encoded", "Exported", "FORMATS",
    "Flatten", "Linear", "Madam", "MultiheadAttention", "Numbers", "SGD", "convert", "cross_entropy", "encode",
    "export", "matmul", "quantise",
]
