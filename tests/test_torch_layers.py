"""Layers in torch: the three products of golden's passes, conversion of a model, the account."""

import copy
import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make torch` installs it and runs these tests")

from narrowgauge.golden import blockfloat, recipes
from narrowgauge.golden.floating import PlainSystem
from narrowgauge.golden.network import Convolution, Gemms
from narrowgauge.golden.precision import Adaptive, Control, Cyclic, Policies
from narrowgauge.torch import Numbers, convert, layers, matmul, quantise
from torch import nn

RECIPES = {
    "fp32": recipes.fp32(), "bfp": recipes.bfp(mantissa=3), "fast": recipes.fast(lag=0), "cpt": recipes.cpt(cycles=2),
    "mx": recipes.mx(gradients_rounding="stochastic"), "mxint8": recipes.mx(element="int8", block=16),
    "int8": recipes.system("int8"), "lns": recipes.system("lns"), "bf16": recipes.system("bf16"),
    "fp8": recipes.system("fp8"), "fp16": recipes.fp16(), "bfp-bf16": recipes.work_in(recipes.bfp(), "bf16"),
}
EXACT = pytest.mark.parametrize("exact", [False, True], ids=["fast", "exact"])


def tensors(*shapes, seed=1):
    """Return tensors of random numbers of float16, which every work format has or rounds."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal(shape).astype(np.float16).astype(np.float32)) for shape in shapes]


def passes(recipe, x, w, g, step=3, steps=10):
    """Return golden's three products of a linear layer, and the account."""
    control = Control(recipe, 2, steps) if recipe.policies else None
    gemms = Gemms(recipe, 7, None, control)
    x, w, g = (gemms.arithmetic.number(each.numpy()) for each in (x, w, g))
    return [gemms.product("forward", 1, x, w, step), gemms.product("input-gradient", 1, g, w, step),
            gemms.product("weight-gradient", 1, g, x, step)], control and control.report()


def near(found, expected, recipe):
    """Assert that sums are those of the same operands, but for the order of additions and roundings of sums."""
    scale = np.abs(expected).max()
    if recipe == RECIPES["lns"]:
        parts = 2.0**-6  # its constants have 8 bits
    else:
        parts = 2.0**-7 if recipe.accumulator.mantissa < 23 or recipe.work.mantissa < 23 else 2.0**-18
    assert np.abs(found - expected).max() <= scale * parts


@EXACT
@pytest.mark.parametrize("name", RECIPES)
def test_three_products_of_a_linear_layer(name, exact):
    recipe = RECIPES[name]
    x, w, g = tensors((9, 37), (6, 37), (9, 6))
    expected, account = passes(recipe, x, w, g)
    numbers = Numbers(recipe, seed=7, exact=exact, layers=2, steps=10)
    numbers.step = 3
    layer = layers.Linear.of(nn.Linear(37, 6, bias=False), numbers, 1)
    layer.weight.data = w
    x.requires_grad_()
    z = layer(x)
    z.backward(g)
    for found, wanted in zip((z.detach(), x.grad, layer.weight.grad), expected):
        if exact:
            assert (found.numpy() == wanted).all()
        else:
            near(found.numpy(), wanted.astype(np.float64), recipe)
    assert numbers.report() == account


def test_operands_have_the_bits_of_golden_with_and_without_exact():
    """A product of one term shows its operands: rows and columns of ones leave them as they are."""
    recipe = recipes.bfp(mantissa=3, activations_rounding="stochastic", weights_rounding="stochastic")
    x, = tensors((20, 16))
    for exact in (False, True):
        numbers = Numbers(recipe, seed=5, exact=exact)
        found = [matmul(x, torch.eye(16), numbers), matmul(x, torch.eye(16), numbers)]
        first = found if not exact else first  # noqa: F821
        assert all((a == b).all() for a, b in zip(first, found))
        assert (found[0] != found[1]).any()  # every product of a step has words of its own
        assert (found[0] != x).any()


@pytest.mark.parametrize("name, exact", [("fp32", True), ("bfp", True), ("mx", True), ("int8", True), ("fp32", False),
                                         ("int8", False)])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (3, 2, 1), (2, 2, 0), (1, 1, 0), (5, 3, 2), (1, 2, 0)])
def test_three_products_of_a_convolution(name, kernel, stride, padding, exact):
    # Without exact, groups lie elsewhere: see the next test. These recipes have none.
    recipe = RECIPES[name]
    geometry = Convolution(9, 7, 3, 4, kernel, stride, padding)
    x, w, g = tensors((2, 3, 9, 7), (4, 3, kernel, kernel), (2, 4, *geometry.shape))
    x[0, 0, 0, 1] = 50  # a scale is that of the images, although no patch has this pixel where a stride leaves it out
    numbers = Numbers(recipe, seed=7, exact=exact)
    layer = layers.Conv2d.of(nn.Conv2d(3, 4, kernel, stride, padding, bias=False), numbers)
    layer.weight.data = w
    x.requires_grad_()
    z = layer(x)
    z.backward(g)

    def rows(images):
        return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1]).numpy()

    gemms = Gemms(recipe, 7)
    images = rows(x.detach()).reshape(2, -1)
    patches = geometry.unroll(images)
    kernels = np.ascontiguousarray(w.permute(0, 2, 3, 1).reshape(4, -1).numpy())
    expected = [gemms.product("forward", 0, patches, kernels, 0, (images, kernels)),
                gemms.input_gradient(geometry, 0, rows(g), kernels, 0).reshape(-1, 3),
                gemms.product("weight-gradient", 0, rows(g), patches, 0, (rows(g), images))]
    found = [rows(z.detach()), rows(x.grad), layer.weight.grad.permute(0, 2, 3, 1).reshape(4, -1).numpy()]
    for each, wanted in zip(found, expected):
        if exact:
            assert (each == wanted).all()
        else:
            near(each, wanted.astype(np.float64), recipe)


def test_a_convolution_of_whole_groups_has_the_operands_of_golden():
    """Where channels are whole groups and nothing is stochastic, unrolling before or after rounding is the same."""
    recipe = recipes.bfp(mantissa=3, gradients_rounding="nearest")
    found = []
    for exact in (False, True):
        x, w, g = tensors((2, 32, 6, 6), (16, 32, 3, 3), (2, 16, 6, 6))
        layer = layers.Conv2d.of(nn.Conv2d(32, 16, 3, padding=1, bias=False), Numbers(recipe, exact=exact))
        layer.weight.data = w
        x.requires_grad_()
        z = layer(x)
        z.backward(g)
        found.append((z.detach().numpy(), x.grad.numpy()))
    for fast, exact in zip(*found):
        near(fast, exact.astype(np.float64), recipe)


def test_a_weight_gradient_has_groups_along_the_pixels_of_a_channel():
    """Of all images, one after the other: an image may hold whole groups (64 pixels) or not (49)."""
    recipe = recipes.bfp(mantissa=3, gradients_rounding="nearest")
    fmt = recipe.system.format_of({"precision": 3})
    for side in (8, 7):
        x, w, g = tensors((3, 2, side, side), (4, 2, 1, 1), (3, 4, side, side))
        layer = layers.Conv2d.of(nn.Conv2d(2, 4, 1, bias=False), Numbers(recipe))
        layer.weight.data = w
        layer(x).backward(g)
        rows = [quantise(each.transpose(0, 1).flatten(1), fmt).double() for each in (g, x)]
        near(layer.weight.grad.flatten(1).numpy(), (rows[0] @ rows[1].T).numpy(), recipe)


@EXACT
def test_a_bias_is_added_and_summed_in_the_work_format(exact):
    x, b, g = tensors((300, 8), (8,), (300, 8))
    for name in ("fp32", "fp16", "bfp-bf16"):
        recipe = RECIPES[name]
        layer = layers.Linear.of(nn.Linear(8, 8), Numbers(recipe, seed=7, exact=exact))
        layer.weight.data, layer.bias.data = torch.eye(8), b.clone()
        z = layer(x)
        z.backward(g)
        gemms = Gemms(recipe, 7)
        work = gemms.arithmetic
        expected = work.add(gemms.product("forward", 0, work.number(x.numpy()), np.eye(8, dtype=recipe.dtype), 0),
                            work.number(b.numpy()))
        assert (z.detach().numpy() == expected).all()
        if exact:
            assert (layer.bias.grad.numpy() == gemms.totals(work.number(g.numpy()), 1)[0]).all()
        else:  # in fp32, and rounded once
            assert torch.allclose(layer.bias.grad, g.sum(0), rtol=2.0**-8, atol=1e-5)


def test_one_dimension_is_a_convolution_of_low_images():
    x, w = tensors((2, 16, 40), (8, 16, 3))
    layer = layers.Conv1d.of(nn.Conv1d(16, 8, 3, stride=2, padding=2, dilation=2, bias=False), Numbers("bfp"))
    image = layers.Conv2d.of(nn.Conv2d(16, 8, (1, 3), stride=(1, 2), padding=(0, 2), dilation=(1, 2), bias=False),
                             Numbers("bfp"))
    layer.weight.data, image.weight.data = w, w.unsqueeze(2)
    assert (layer(x) == image(x.unsqueeze(2)).squeeze(2)).all()
    layer.numbers.exact = True
    with pytest.raises(ValueError, match="^exact is True; allowed: False, because golden has no convolution of rows$"):
        layer(x)


@EXACT
def test_an_embedding_rounds_rows_and_gradients(exact):
    w, g = tensors((11, 20), (2, 5, 20))
    recipe = recipes.bfp(mantissa=3, gradients_rounding="nearest")
    layer = layers.Embedding.of(nn.Embedding(11, 20, padding_idx=2), Numbers(recipe, exact=exact))
    layer.weight.data = w
    index = torch.tensor([[1, 2, 3, 1, 10], [0, 0, 1, 2, 4]])
    found = layer(index)
    found.backward(g)
    fmt = recipe.system.format_of({"precision": 3})
    assert (found.detach().numpy() == blockfloat.quantise(w.numpy(), fmt).values()[index.numpy()]).all()
    rounded, expected = blockfloat.quantise(g.numpy(), fmt).values(), np.zeros((11, 20))
    for at in np.ndindex(2, 5):
        if index[at] != 2:
            expected[index[at]] += rounded[at]
    assert np.allclose(layer.weight.grad.numpy(), expected, atol=1e-6)


@EXACT
@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_in_fp32_is_that_of_torch(batch_first, exact):
    torch.manual_seed(1)
    plain = nn.MultiheadAttention(24, 3, batch_first=batch_first)
    nn.init.normal_(plain.in_proj_bias)
    ours = copy.deepcopy(plain)
    convert(ours, "fp32", exact=exact)
    assert type(ours) is layers.MultiheadAttention and type(ours.out_proj) is not layers.Linear
    q, k = tensors((5, 2, 24), (7, 2, 24))
    q, k = (each.transpose(0, 1) if batch_first else each for each in (q, k))
    hidden = torch.zeros(2, 7, dtype=torch.bool)
    hidden[0, 5:] = True
    for settings in ({}, {"attn_mask": torch.ones(5, 7, dtype=torch.bool).triu(3)}, {"need_weights": False},
                     {"key_padding_mask": hidden, "average_attn_weights": False},
                     {"attn_mask": torch.randn(6, 5, 7)}):
        (found, weights), (expected, others) = (each(q, k, k, **settings) for each in (ours, plain))
        assert torch.allclose(found, expected, atol=1e-5)
        assert weights is others is None or torch.allclose(weights, others, atol=1e-6)
    alone = [each.select(0 if batch_first else 1, 0) for each in (q, k)]
    assert torch.allclose(ours(alone[0], alone[1], alone[1])[0], plain(alone[0], alone[1], alone[1])[0], atol=1e-5)


def network():
    """Return a small network of most kinds."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(),
                         nn.Sequential(nn.Linear(8 * 16, 16), nn.MultiheadAttention(16, 2)), nn.Linear(16, 5))


def test_a_conversion_tells_what_it_changed():
    model = network()
    before = dict(model.named_parameters())
    conversion = convert(model, "bfp", keep=["5", "4.0*"])
    assert str(conversion).splitlines() == [
        "0 (Conv2d): kept, padding is 'same' with 'zeros', and only zeros by number will do",
        "2 (Conv2d): converted, layer 0", "4.0 (Linear): kept, by keep='4.0*'",
        "4.1 (MultiheadAttention): converted, layer 1", "5 (Linear): kept, by keep='5'"]
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert type(model[2]) is layers.Conv2d and type(model[5]) is nn.Linear
    assert model.state_dict().keys() == network().state_dict().keys()


@pytest.mark.parametrize("arguments, message", [
    ({"keep": ["6"]}, "^keep is '6'; allowed: names of the model's modules$"),
    ({"keep": ["*"]}, "^model is 'Sequential'; allowed: one with a module to convert: Linear, "),
    ({"recipe": "bfq"}, "^recipe is 'bfq'; allowed: fp32, "),
    ({"recipe": recipes.lns_madam()}, "^stored is 'logarithmic weights'; allowed: None"),
    ({"recipe": recipes.fp16(loss_scale=8)}, "^loss_scale is "),
    ({"recipe": recipes.cpt()}, "^steps is None; allowed: an integer from 1 to"),
    ({"exact": 1}, "^exact is 1; allowed: true, false$"),
    ({"seed": -1}, "^seed is -1; allowed: an integer from 0 to 2147483647$"),
])
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert(**{"model": network(), "recipe": "bfp", **arguments})


@EXACT
def test_policies_go_on_with_the_steps_of_an_optimiser(exact):
    policy = Cyclic(2, 4, cycles=2)
    recipe = recipes.bfp(weights_precision=policy, gradients_precision=Adaptive(lag=0), activations_mantissa=5)
    assert isinstance(recipe.precision, Policies)
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))
    conversion = convert(model, recipe, steps=8, exact=exact)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    conversion.attach(optimiser)
    x, y = tensors((6, 20))[0], torch.arange(6) % 3
    for _ in range(8):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        model.eval()
        model(x)
        model.train()
    account = conversion.report()
    expected = [policy.width(0, 2, step, 8) for step in range(8)]
    changes = [[k, width] for k, width in enumerate(expected) if k == 0 or width != expected[k - 1]]
    assert account["widths"]["weights"] == [changes, changes]
    assert account["widths"]["activations"] == [[[0, 5]], [[0, 5]]]
    assert {width for layer in account["steps"]["gradients"] for width in layer} <= {"2", "4"}
    products = {(each["gemm"], each["m"], each["n"], each["k"]) for each in account["products"]}
    assert products == {("forward", 6, 8, 20), ("forward", 6, 3, 8), ("input-gradient", 6, 8, 3),
                        ("weight-gradient", 8, 20, 6), ("weight-gradient", 3, 8, 6)}
    assert sum(each["count"] for each in account["products"]) == 8 * 5
    assert 0 < account["bit_operations"]["used"] < account["bit_operations"]["static"]


def test_a_measuring_pass_has_words_of_its_own():
    recipe = recipes.bfp(activations_rounding="stochastic")
    model = nn.Sequential(nn.Linear(64, 8))
    conversion = convert(model, recipe)
    x, = tensors((6, 64))
    first = model(x)
    model.eval()
    measured = [model(x), model(x)]
    conversion.numbers.advance()
    assert (model(x) == measured[0]).all() and (measured[0] != measured[1]).any() and (first != measured[0]).any()
    model.train()
    conversion.numbers.step = 0
    conversion.numbers._drawn.clear()
    assert (model(x) == first).all()


def test_batched_products_are_those_of_each_matrix():
    a, b, g = tensors((2, 3, 5, 20), (3, 20, 7), (2, 3, 5, 7))
    recipe = recipes.bfp(gradients_rounding="nearest")
    found = []
    for exact in (False, True):
        x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
        z = matmul(x, y, Numbers(recipe, exact=exact))
        z.backward(g)
        found.append([each.detach().numpy() for each in (z, x.grad, y.grad)])
        one = matmul(a[1, 2], b[2], Numbers(recipe, exact=exact))
        assert torch.allclose(one, z[1, 2], atol=1e-5)
    for fast, exact in zip(*found):
        near(fast, exact.astype(np.float64), recipe)
    with pytest.raises(ValueError, match="^shapes is "):
        matmul(a, b.mT, Numbers(recipe))


def test_a_number_system_without_a_format_is_exact_alone():
    numbers = Numbers(recipes.Recipe("bare", Bare()))
    with pytest.raises(ValueError, match="^exact is False; allowed: True, because Bare has no format that torch"):
        matmul(*tensors((3, 4), (4, 5)), numbers)
    a, b = tensors((3, 4), (4, 5))
    found = matmul(a, b, Numbers(recipes.Recipe("bare", Bare()), exact=True))
    assert torch.allclose(found, a @ b, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Bare(PlainSystem):
    """A number system that tells no format; it derives from one that has products."""

    def format_of(self, mode):
        """Return nothing."""
        return None
