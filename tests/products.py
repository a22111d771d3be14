"""The products of a training, made again in the array's model."""

import numpy as np
from narrowgauge.golden import datasets, network
from narrowgauge.golden.array import ArrayModel, ArrayParameters, Operand, Product

__all__ = ["check_training"]


def check_training(recipe, monkeypatch):
    """Train, and make every product again in the array's model, from the tensors, modes and addresses of the training.

    Those of measuring accuracy are among them.
    """
    group, calls = recipe.system.group, []
    product, operand = type(recipe.system).product, type(recipe.system).operand

    def keep_operand(self, array, axis, mode, side, draws):
        calls.append((array if axis == 1 else array.T, mode, draws))
        return operand(self, array, axis, mode, side, draws)

    def keep_product(self, a, b):
        found = product(self, a, b)
        calls.append(found[0])
        return found

    monkeypatch.setattr(type(recipe.system), "operand", keep_operand)
    monkeypatch.setattr(type(recipe.system), "product", keep_product)
    data = datasets.load("digits").first(12, 4)
    network.train(recipe, data, hidden=(7,), epochs=1, batch=6)
    products = [calls[at:at + 3] for at in range(0, len(calls), 3)]
    assert len(products) >= 2 * 5 + 2 * 2
    model = ArrayModel(ArrayParameters(recipe.system, memory=max(1 << 13, 1 << 8 + group.bit_length())))
    for (x, x_mode, draws), (y, y_mode, _), values in products:
        operands, block = [], 0
        for matrix, mode in ((x, x_mode), (y, y_mode)):
            stride = -(-matrix.shape[1] // group)
            model.store(block, stride, matrix)
            operands.append(Operand(block, stride, False, mode))
            block += stride * -(-len(matrix) // group)
        assert block <= model.parameters.blocks
        codes = model.multiply(Product(len(x), len(y), x.shape[1], *operands, use=draws.use, step=draws.step))
        assert np.array_equal(recipe.accumulator.encode(values), codes)
