"""Trains a perceptron on scikit-learn's digits in PyTorch, in block floating point, and hands it to the core.

Run ``python examples/torch_digits.py``. It needs the extras ``torch`` and ``data``. It writes two files, with which
training goes on in golden, or with ``--rtl`` in the simulated core as well:

    narrowgauge train --recipe bfp --work bf16 --update stochastic --model digits.json --start digits.npz
"""

import sys

import torch
from narrowgauge.golden import datasets, recipes
from narrowgauge.torch import SGD, convert, cross_entropy, export
from torch import nn

BATCH = 32
# That of the command above: 4-bit block floating point, and bf16 between products.
RECIPE = recipes.keep(recipes.work_in(recipes.bfp(), "bf16"), update="stochastic").with_head(10)


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the part of the examples whose greatest logit is that of their label."""
    model.eval()
    with torch.no_grad():
        right = (model(x).argmax(1) == y).double().mean()
    model.train()
    return float(right)


def main(epochs: int = 10, model_file: str = "digits.json", start_file: str = "digits.npz") -> float:
    """Train, print accuracies and costs, write the files, and return the accuracy on the test part."""
    data = datasets.load("digits")
    train_x, train_y, test_x, test_y = map(torch.from_numpy, (data.train_x, data.train_y, data.test_x, data.test_y))
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    conversion = convert(model, RECIPE)
    print(conversion)
    optimiser = SGD(conversion.groups(), lr=0.1, momentum=0.9, format="bf16", update="stochastic")
    conversion.attach(optimiser)
    for epoch in range(1, epochs + 1):
        for chosen in torch.randperm(len(train_x)).split(BATCH):
            optimiser.zero_grad()
            cross_entropy(model(train_x[chosen]), train_y[chosen], conversion.numbers).backward()
            optimiser.step()
        print(f"epoch {epoch}: accuracy {accuracy(model, test_x, test_y):.4f}")

    cost = conversion.report()
    assert cost is not None, "block floating point has an account"
    operations = cost["bit_operations"]
    print(f"bit operations: {operations['used']:,}, in fp32 {operations['fp32']:,}")
    print(f"cycles of a 4 x 4 array: {cost['cycles']['used']:,}")
    export(model, (64,)).write(model_file, start_file, RECIPE)
    return accuracy(model, test_x, test_y)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
