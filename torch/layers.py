"""Layers whose products are quantised: torch's own modules, parameters and all, with other forward and backward passes.

Each is made of a torch module by `convert`, or by `of`. Source: numerics contract, section 14.
"""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..base.checks import require
from . import products
from .numbers import Numbers

__all__ = ["KINDS", "Conv1d", "Conv2d", "Embedding", "Flatten", "Linear", "MultiheadAttention"]


class _Quantised:
    """Mixin of a module: what its products share, and its number.

    Attributes
    ----------
    numbers : Numbers
    layer : int
        From 0, in the order of the model.
    """

    numbers: Numbers
    layer: int
    training: bool
    bias: Tensor | None
    layers: ClassVar[int] = 1  # numbers of layers that a module takes

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        """Return why a module cannot be converted, or None."""
        return None

    @classmethod
    def of(cls, module: nn.Module, numbers: Numbers, layer: int = 0) -> Self:
        """Turn a torch module into this one, in place: its parameters, hooks and name stay."""
        why = cls.refusal(module)
        require(why is None, "module", module, f"one that can be converted: {why}")
        module.__class__ = cls
        module.numbers, module.layer = numbers, layer
        return module  # type: ignore[no-any-return]

    def _with_bias(self, x: Tensor) -> Tensor:
        return x if self.bias is None else products.add_bias(x, self.bias, self.numbers)


class Linear(_Quantised, nn.Linear):
    """`torch.nn.Linear` with quantised products."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of features (..., inputs) and weights, plus the bias."""
        rows = products.linear(x.reshape(-1, x.shape[-1]), self.weight, self.numbers, self.layer, self.training)
        return self._with_bias(rows).reshape(*x.shape[:-1], self.out_features)


class Conv2d(_Quantised, nn.Conv2d):
    """`torch.nn.Conv2d` with quantised products."""

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        """Return why a module cannot be converted, or None."""
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            return f"padding is {module.padding!r} with {module.padding_mode!r}, and only zeros by number will do"
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images (batch, channels, height, width), plus the bias."""
        found = products.conv2d(x, self.weight, self.numbers, self.layer, self.training, stride=self.stride,
                                padding=self.padding, dilation=self.dilation, groups=self.groups)
        return self._with_bias(found)


class Conv1d(_Quantised, nn.Conv1d):
    """`torch.nn.Conv1d` with quantised products: a convolution of images one pixel high. Not with ``exact``."""

    refusal = Conv2d.refusal

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of rows (batch, channels, length), plus the bias."""
        require(not self.numbers.exact, "exact", True, "False, because golden has no convolution of rows")
        found = products.conv2d(x.unsqueeze(2), self.weight.unsqueeze(2), self.numbers, self.layer, self.training,
                                stride=(1, *self.stride), padding=(0, *self.padding), dilation=(1, *self.dilation),
                                groups=self.groups)
        return self._with_bias(found.squeeze(2))


class Embedding(_Quantised, nn.Embedding):
    """`torch.nn.Embedding` whose rows are quantised as weights, and whose gradients as gradients."""

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        """Return why a module cannot be converted, or None."""
        if module.max_norm is not None or module.sparse or module.scale_grad_by_freq:
            return "max_norm, sparse and scale_grad_by_freq have no quantised counterpart"
        return None

    def forward(self, index: Tensor) -> Tensor:
        """Return the rows that an index names."""
        return products.embedding(self.weight, index, self.numbers, self.layer, self.training, self.padding_idx)


class MultiheadAttention(_Quantised, nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with quantised projections, scores and weighted sums.

    It takes six numbers of layers: of query, key, value, scores, sums and output. The softmax is torch's, in fp32.
    """

    layers = 6

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        """Return why a module cannot be converted, or None."""
        if module.bias_k is not None or module.add_zero_attn or not module._qkv_same_embed_dim:
            return "bias_k, add_zero_attn and sizes of keys of their own have no quantised counterpart"
        return None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return (outputs, attention weights or None): arguments and shapes are those of `torch.nn.MultiheadAttention`.
        """
        batched = query.dim() == 3
        inputs = [x if batched else x.unsqueeze(0 if self.batch_first else 1) for x in (query, key, value)]
        inputs = [x if self.batch_first else x.transpose(0, 1) for x in inputs]
        q, k, v = (self._projected(x, at) for at, x in enumerate(inputs))
        scores = products.matmul(q / math.sqrt(self.head_dim), k.mT, self.numbers, self.layer + 3, self.training)
        scores = self._masked(scores, key_padding_mask, attn_mask)
        weights = torch.softmax(scores, dim=-1)
        weights = nn.functional.dropout(weights, self.dropout, self.training)
        sums = products.matmul(weights, v, self.numbers, self.layer + 4, self.training)
        rows = sums.transpose(1, 2).reshape(-1, self.embed_dim)
        rows = products.linear(rows, self.out_proj.weight, self.numbers, self.layer + 5, self.training)
        if self.out_proj.bias is not None:
            rows = products.add_bias(rows, self.out_proj.bias, self.numbers)
        found = rows.reshape(len(q), -1, self.embed_dim)
        found = found if self.batch_first else found.transpose(0, 1)
        shown = None
        if need_weights:
            shown = weights.mean(1) if average_attn_weights else weights
        if not batched:
            found, shown = found.squeeze(0 if self.batch_first else 1), shown if shown is None else shown.squeeze(0)
        return found, shown

    def _projected(self, x: Tensor, at: int) -> Tensor:
        """Return the heads (batch, heads, length, size) of query, key or value, by number."""
        part = slice(at * self.embed_dim, (at + 1) * self.embed_dim)
        rows = products.linear(x.reshape(-1, self.embed_dim), self.in_proj_weight[part], self.numbers, self.layer + at,
                               self.training)
        if self.in_proj_bias is not None:
            rows = products.add_bias(rows, self.in_proj_bias[part], self.numbers)
        return rows.reshape(len(x), -1, self.num_heads, self.head_dim).transpose(1, 2)

    def _masked(self, scores: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> Tensor:
        """Add masks to scores (batch, heads, queries, keys); a mask of bool is true where nothing is looked at."""
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.reshape(len(scores), self.num_heads, *attn_mask.shape[1:])
            scores = scores + _additive(attn_mask)
        if key_padding_mask is not None:
            scores = scores + _additive(key_padding_mask.reshape(len(scores), 1, 1, -1))
        return scores


def _additive(mask: Tensor) -> Tensor:
    """Return a mask as numbers to be added."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(mask, -math.inf) if mask.dtype == torch.bool else (
        mask)


class Flatten(nn.Module):
    """Makes rows of images, pixel by pixel and in a pixel channel by channel, as golden and the core do.

    `torch.nn.Flatten` has them channel by channel: a linear layer behind it adds in another order.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return images (batch, channels, height, width) as (batch, features)."""
        return x.permute(0, 2, 3, 1).reshape(len(x), -1)


# By torch's module: what it becomes.
KINDS: dict[type[nn.Module], Any] = {
    nn.Linear: Linear, nn.Conv1d: Conv1d, nn.Conv2d: Conv2d, nn.Embedding: Embedding,
    nn.MultiheadAttention: MultiheadAttention,
}
