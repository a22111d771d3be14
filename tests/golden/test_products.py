"""Products that are cut for the machine's BLAS: every part is there, once."""

import numpy as np
import pytest
from narrowgauge.golden import products

# About the cuts: K of 256, N of 128, and rows so that a part has 2**18 multiplications.
SHAPES = [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (9, 255, 127), (8, 256, 128), (9, 257, 129), (33, 600, 300)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_product_is_that_of_integers(shape, dtype):
    m, k, n = shape
    rng = np.random.default_rng(1)
    a, b = rng.integers(-9, 10, (m, k)), rng.integers(-9, 10, (k, n))
    found = products.product(a.astype(dtype), np.asfortranarray(b.astype(dtype)))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, a @ b)


@pytest.mark.parametrize("each", [0, 1, products.SERIAL // 3, products.SERIAL, 5 * products.SERIAL])
def test_slabs_are_all_rows_once_and_small(each):
    parts = list(products.slabs(10, each))
    assert [row for part in parts for row in range(10)[part]] == list(range(10))
    assert all(len(range(10)[part]) == 1 or len(range(10)[part]) * each <= products.SERIAL for part in parts)
