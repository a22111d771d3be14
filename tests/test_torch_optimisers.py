"""Optimisers in torch move weights with golden's bits, step for step."""

import io
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make torch` installs it and runs these tests")

from narrowgauge.golden import recipes, update
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.madam import MadamParameters
from narrowgauge.golden.network import UPDATE, LogWeights, State, draws_of
from narrowgauge.golden.recipes import Stored
from narrowgauge.golden.rounding import stochastic
from narrowgauge.torch import SGD, AdamW, Madam, convert
from narrowgauge.torch.moving import Arithmetic
from torch import nn

FORMATS = [PRESETS[name] for name in ("fp32", "fp16", "bf16", "fp8-e5m2")] + [Float(6, 9)]


def numbers(fmt, shape, seed, width=6.0):
    """Return codes of numbers of a format, some of them zeros and some far from 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.uniform(-width, 0, shape)) * (rng.random(shape) < 0.95)
    return fmt.encode(x)


def tensor(fmt, codes):
    return torch.from_numpy(fmt.decode(codes).astype(np.float32))


@pytest.mark.parametrize("method", update.METHODS)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_sgd_takes_the_steps_of_golden(fmt, method):
    shapes = [(9, 21), (7,), (2, 3, 3, 5), ()]
    codes = [numbers(fmt, shape, k) for k, shape in enumerate(shapes)]
    parameters = [nn.Parameter(tensor(fmt, each)) for each in codes]
    optimiser = SGD([{"params": parameters[:2], "layer": 3}, {"params": parameters[2:3]}, {"params": parameters[3:]}],
                    lr=0.3, momentum=0.9, weight_decay=0.01, format=fmt, update=method, random_bits=5, seed=11)
    velocities, compensations = ([np.zeros_like(each) for each in codes] for _ in range(2))
    for step in range(6):
        rates = [update.rate_code(fmt, each) for each in (0.3 / 2**step, 0.9, 0.01)]
        for group in optimiser.param_groups:
            group["lr"] = 0.3 / 2**step
        vector = 0
        for k, parameter in enumerate(parameters):
            gradient = numbers(fmt, shapes[k], 100 + 10 * step + k)
            parameter.grad = tensor(fmt, gradient)
            words = None
            if method == "stochastic":
                address = draws_of(11, 3 if k < 2 else k, UPDATE, step)
                if k == 0:
                    words, vector = address.rows(shapes[0], 5), 9 * 2
                elif k == 1:
                    words = address.__class__(11, step, address.use, vector).rows(shapes[1], 5)
                elif k == 2:
                    words = address.rows((2, 45), 5).reshape(2, 3, 5, 3).transpose(0, 3, 1, 2)
                else:
                    words = address.rows((1,), 5).reshape(())
            codes[k], velocities[k], compensations[k] = update.step(
                fmt, method, codes[k], velocities[k], compensations[k], gradient, *rates, words, stochastic(5))
        optimiser.step()
        for k, parameter in enumerate(parameters):
            state = optimiser.state[parameter]
            assert (fmt.encode(parameter.detach().numpy()) == codes[k]).all()
            assert (fmt.encode(state["velocity"].numpy()) == velocities[k]).all()
            if method in ("kahan", "grow"):
                assert (fmt.encode(state["compensation"].numpy()) == compensations[k]).all()


@pytest.mark.parametrize("fmt", [PRESETS["bf16"], PRESETS["fp8-e5m2"], PRESETS["fp32"]], ids=str)
def test_every_kind_of_number(fmt):
    """Inf, NaN, zeros of both signs, subnormal and large numbers, of all sizes: one step of each method."""
    rng = np.random.default_rng(5)
    codes, gradients = (rng.integers(0, 1 << fmt.width, 20000, np.uint32, endpoint=False) for _ in range(2))
    codes = fmt.encode(fmt.decode(codes))  # the canonical NaN
    for method in update.METHODS:
        parameter = nn.Parameter(tensor(fmt, codes))
        optimiser = SGD([parameter], 0.5, 0.5, format=fmt, update=method, random_bits=16)
        parameter.grad = tensor(fmt, gradients)
        optimiser.step()
        zeros = np.zeros_like(codes)
        words = draws_of(1, 0, UPDATE, 0).rows(codes.shape, 16)
        rate = update.rate_code(fmt, 0.5)
        expected = update.step(fmt, method, codes, zeros, zeros, fmt.encode(fmt.decode(gradients)), rate, rate, 0,
                               words, stochastic(16))
        assert (fmt.encode(parameter.detach().numpy()) == expected[0]).all(), method
        assert (fmt.encode(optimiser.state[parameter]["velocity"].numpy()) == expected[1]).all(), method


def test_stochastic_sums_look_at_the_exact_fraction():
    """float64 does not hold these sums; the exact ones, as fractions, decide."""
    fmt, arithmetic = PRESETS["bf16"], Arithmetic(PRESETS["bf16"])
    a = torch.tensor([1.0, 1.0, -1.0, 3.0, 2.0**100, 1.0], dtype=torch.float64)
    b = torch.tensor([2.0**-60, -(2.0**-60), 2.0**-60, -(2.0**-70), 2.0**-100, -(2.0**-8)], dtype=torch.float64)
    for word in (0, 1, 255):
        found = arithmetic.add_rounded(a, b, stochastic(8), torch.full((6,), word))
        for x, y, z in zip(a.tolist(), b.tolist(), found.tolist()):
            exact = abs(Fraction(x) + Fraction(y))
            exponent = int(np.log2(float(exact)))
            exponent -= exact < Fraction(2) ** exponent
            unit = Fraction(2) ** (exponent - fmt.mantissa)
            whole, part = divmod(exact / unit, 1)
            assert abs(Fraction(z)) == (whole + (int(part * 256) + word >= 256)) * unit


def test_sgd_of_a_network_is_that_of_golden():
    """`State.step` with the recipe's `Kept`: the same words, layer by layer."""
    model = nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 4))
    conversion = convert(model, "bfp")
    optimiser = SGD(conversion.groups(), 0.25, 0.5, format="bf16", update="stochastic", seed=4)
    layers = [[each.detach().numpy().copy() for each in group["params"]] for group in optimiser.param_groups]
    state = State(recipes.keep(recipes.bfp(), "bf16", "stochastic"), layers, seed=4, steps=3)
    rng = np.random.default_rng(1)
    for _ in range(3):
        slopes = [[rng.standard_normal(each.shape).astype(np.float32) for each in layer] for layer in layers]
        for group, layer in zip(optimiser.param_groups, slopes):
            for parameter, slope in zip(group["params"], layer):
                parameter.grad = torch.from_numpy(slope)
        state.step(slopes, [None, None], 0.25, 0.5)
        optimiser.step()
    for group, layer in zip(optimiser.param_groups, state.parameters):
        assert all((p.detach().numpy() == q).all() for p, q in zip(group["params"], layer))


def test_madam_moves_codes_as_golden_does():
    settings = MadamParameters(memory=50, random_bits=8)
    rng = np.random.default_rng(2)
    start = rng.standard_normal((12, 33)).astype(np.float32)
    held = LogWeights(Stored(settings.weight, settings, 4), start, 100)
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    optimiser = Madam([parameter], 4, settings=settings, seed=9)
    for step in range(20):
        gradient = (rng.standard_normal(start.shape) * np.exp2(rng.uniform(-30, 5, start.shape))).astype(np.float32)
        gradient[step % 12, :3] = [0, np.nan, np.inf]
        with np.errstate(all="ignore"):
            held.move(gradient, 0, 0, 0, lambda shape, bits, step=step: draws_of(9, 0, UPDATE, step).rows(shape, bits))
        parameter.grad = torch.from_numpy(gradient)
        optimiser.step()
        assert (optimiser.state[parameter]["codes"].numpy() == held.values.codes).all()
        assert (optimiser.state[parameter]["second"].numpy() == held._state).all()
        assert (parameter.detach().numpy() == held.values.values().astype(np.float32)).all()
    assert (held.values.codes != held.start.codes).mean() > 0.5


def problem(optimiser_of, steps=60, lr_of=None, seed=3):
    """Fit a linear map with an optimiser; return (parameters, the optimiser, the loss)."""
    torch.manual_seed(seed)
    layer = nn.Linear(16, 8)
    x, y = torch.randn(64, 16), torch.randn(64, 8)
    optimiser = optimiser_of(layer.parameters())
    scheduler = lr_of(optimiser) if lr_of else None
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(layer(x), y)
        loss.backward()
        optimiser.step()
        if scheduler:
            scheduler.step()
    return [each.detach().clone() for each in layer.parameters()], optimiser, loss.item()


def test_adamw_in_fp32_is_that_of_torch():
    """Plain in fp32 without decay: torch's own bits. With decay the change is rounded once more."""
    for decay in (0.0, 0.1):
        ours, *_ = problem(lambda p, decay=decay: AdamW(p, 0.01, weight_decay=decay, format="fp32", update="plain"))
        theirs, *_ = problem(lambda p, decay=decay: torch.optim.AdamW(p, 0.01, weight_decay=decay, foreach=False))
        for a, b in zip(ours, theirs):
            assert torch.allclose(a, b, rtol=0, atol=1e-6 if decay else 1e-7)


def test_adamw_in_bf16_needs_its_update():
    """Small steps get lost in plain bf16; stochastic rounding and Kahan follow fp32 (arXiv 2502.20566, 1810.05486)."""
    losses = {}
    for kind in ("plain", "stochastic", "kahan"):
        found, _, losses[kind] = problem(lambda p, kind=kind: AdamW(p, 2e-4, weight_decay=0, update=kind), steps=400)
        assert all((each.bfloat16().float() == each).all() for each in found)
    _, _, exact = problem(lambda p: AdamW(p, 2e-4, weight_decay=0, format="fp32", update="plain"), steps=400)
    assert abs(losses["kahan"] - exact) < 0.01 and abs(losses["stochastic"] - exact) < 0.02
    assert losses["plain"] - exact > 2 * max(losses["stochastic"] - exact, losses["kahan"] - exact)


KINDS = {
    "sgd": lambda p: SGD(p, 0.1, 0.9, format="bf16", update="kahan"),
    "sgd-grow": lambda p: SGD(p, 0.1, format="fp16", update="grow"),
    "stochastic": lambda p: SGD(p, 0.1, format="bf16", update="stochastic"),
    "adamw": lambda p: AdamW(p, 0.01), "madam": lambda p: Madam(p, 6),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_saved_goes_on_with_the_same_bits(kind):
    def run(steps, parameters=None, state=None):
        torch.manual_seed(1)
        layer = nn.Linear(16, 8)
        if parameters:
            layer.load_state_dict(parameters)
        optimiser = KINDS[kind](layer.parameters())
        if state:
            optimiser.load_state_dict(state)
            layer.load_state_dict(parameters)
        for step in steps:
            torch.manual_seed(step)
            optimiser.zero_grad()
            layer(torch.randn(4, 16)).square().sum().backward()
            optimiser.step()
        return layer.state_dict(), optimiser.state_dict()

    whole, _ = run(range(8))
    first, state = run(range(4))
    file = io.BytesIO()
    torch.save((first, state), file)
    file.seek(0)
    resumed, _ = run(range(4, 8), *torch.load(file))
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_schedulers_and_groups_and_closures():
    _, optimiser, _ = problem(KINDS["sgd"], 10, lambda each: torch.optim.lr_scheduler.StepLR(each, 4, 0.5))
    assert optimiser.param_groups[0]["lr"] == 0.025
    layer = nn.Linear(4, 4)
    optimiser = SGD([{"params": [layer.weight], "lr": 0.5, "weight_decay": 0.1}, {"params": [layer.bias]}], 0.0)
    before = layer.bias.detach().clone()

    def closure():
        loss = layer(torch.ones(2, 4)).square().sum()
        loss.backward()
        return loss

    assert optimiser.step(closure) > 0
    assert (layer.bias == before).all()
    layer.weight.grad = None
    optimiser.step()


@pytest.mark.parametrize("make, message", [
    (lambda p: SGD(p, 3.0), "^lr is 3.0; allowed: a number from 0 to below 2$"),
    (lambda p: SGD(p, 0.1, 2.0), "^momentum is 2.0; allowed: a number from 0 to below 2$"),
    (lambda p: SGD(p, 0.1, format="fp7"), "^format is 'fp7'; allowed: "),
    (lambda p: SGD(p, 0.1, format="fp8-e4m3"), "^format is Float.*; allowed: a Float with specials 'ieee'"),
    (lambda p: SGD(p, 0.1, format="fast-4"), "^format is BlockFloat"),
    (lambda p: SGD(p, 0.1, update="nesterov"), "^update is 'nesterov'; allowed: plain, stochastic, kahan, grow$"),
    (lambda p: SGD(p, 0.1, random_bits=17), "^random_bits is 17; allowed: an integer from 1 to 16$"),
    (lambda p: AdamW(p, -1.0), "^lr is -1.0; allowed: a number, 0 or above$"),
    (lambda p: AdamW(p, betas=(0.9, 1.0)), "^betas is "),
    (lambda p: Madam(p, 8), "^rate is 8; allowed: an integer from 0 to 7$"),
    (lambda p: Madam(p, seed=-1), "^seed is -1; allowed: an integer from 0 to"),
])
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make([nn.Parameter(torch.ones(3))])
