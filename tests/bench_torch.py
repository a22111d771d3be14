"""One-core speeds of narrowgauge.torch: quantisers, and a training step of ResNet-20, beside golden and plain torch.

Run ``python tests/bench_torch.py`` where torch is installed. Figures are medians in CPU time, as in bench_golden.py.
"""

import platform

from bench_golden import ELEMENTS, FORMAT, GROUP, median, report  # first: it keeps libraries to one thread

try:
    import torch
except ImportError:
    raise SystemExit("torch is not installed: see `make torch`") from None

import numpy as np
from narrowgauge.golden import blockfloat, recipes
from narrowgauge.golden.rounding import stochastic
from narrowgauge.golden.words import Stream
from narrowgauge.torch import Draws, Numbers, convert, matmul, quantise
from torch import nn

BATCH = 32


class Block(nn.Module):
    """Two convolutions with batch statistics, and a way past them: the basic block of ResNet, shortcut A."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = outputs // inputs
        self.first = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = torch.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        if self.stride > 1:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2))
        return torch.relu(y + x)


def resnet20() -> nn.Sequential:
    """Return ResNet-20 for images of 32 x 32 pixels and ten classes (arXiv 1512.03385, section 4.2)."""
    sizes = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Block(inputs, outputs) for inputs, outputs in zip(sizes, sizes[1:])]
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def step(recipe: str | None):
    """Return a training step of ResNet-20, in torch's fp32 or converted."""
    torch.manual_seed(1)
    model = resnet20()
    conversion = convert(model, recipes.make(recipe)) if recipe else None
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10

    def work() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        if conversion:
            conversion.step()

    return work


def sums(side: int = 256) -> None:
    """Print how products with exact=False differ from golden's, and how long both take."""
    print(f"product {side}^3: golden's order of additions (exact), and fp32 sums of the same operands (fast)")
    torch.manual_seed(1)
    a, b = torch.randn(side, side), torch.randn(side, side)
    for name in ("bfp", "mx", "system", "fp16"):
        numbers = [Numbers(name, exact=exact) for exact in (True, False)]
        exact, fast = (matmul(a, b, each) for each in numbers)
        taken = [median(lambda each=each: matmul(a, b, each)) * 1000 for each in numbers]
        difference = float((fast - exact).abs().max() / exact.abs().max())
        same, label = float((fast == exact).double().mean()), "int8" if name == "system" else name
        print(f"  {label:10} exact {taken[0]:7.1f} ms, fast {taken[1]:6.1f} ms; {same:.4f} of results equal, greatest "
              f"difference {difference:.1e} of the largest result", flush=True)


def main() -> None:
    """Print all rows."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, one core, median of 5")
    rows = np.random.default_rng(1).standard_normal((ELEMENTS // GROUP, GROUP), dtype=np.float32)
    x = torch.from_numpy(rows)
    print(f"quantise {ELEMENTS} float32, groups of {GROUP}, {FORMAT.mantissa} magnitude bits")
    for name, work in (
        ("golden, nearest", lambda: blockfloat.quantise(rows, FORMAT)),
        ("torch, nearest", lambda: quantise(x, FORMAT)),
        ("torch, truncate", lambda: quantise(x, FORMAT, "truncate")),
        ("golden, stochastic, random words included",
         lambda: blockfloat.quantise(rows, FORMAT, rounding=stochastic(), random=Stream(1, GROUP))),
        ("torch, stochastic, random words included", lambda: quantise(x, FORMAT, "stochastic", words=Draws(1))),
        ("torch, nearest, along the other axis", lambda: quantise(x.view(GROUP, -1), FORMAT, axis=0)),
        ("torch, MXFP8 E4M3, nearest", lambda: quantise(x.view(-1, 32), "mxfp8-e4m3")),
        ("torch, bf16, nearest", lambda: quantise(x, "bf16")),
        ("torch, lns8", lambda: quantise(x, "lns8")),
    ):
        report(name, "M elements", ELEMENTS, lambda work=work: work)
    sums()
    print(f"training step of ResNet-20, batch of {BATCH}")
    plain = median(step(None), 3)
    print(f"  {'torch, fp32':58} {plain * 1000:8.1f} ms", flush=True)
    for recipe in ("bfp", "mx"):
        taken = median(step(recipe), 3)
        print(f"  {f'converted, recipe {recipe}':58} {taken * 1000:8.1f} ms, {taken / plain:.2f} times", flush=True)


if __name__ == "__main__":
    main()
