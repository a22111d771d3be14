"""A torch model as a network of golden: a step in both ends with equal weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make torch` installs it and runs these tests")

from narrowgauge import cli
from narrowgauge.golden import recipes
from narrowgauge.golden.datasets import Dataset
from narrowgauge.golden.network import Gemms, State, find_model, gradients, train
from narrowgauge.golden.precision import Control
from narrowgauge.torch import SGD, Flatten, Numbers, convert, cross_entropy, export
from torch import nn

BATCH, STEPS = 6, 3


def network(flatten=Flatten):
    """Return a small network of images, as torch has it."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU()), nn.Conv2d(5, 8, 3, stride=2),
                         nn.ReLU(), flatten(), nn.Linear(8 * 9, 12), nn.ReLU(), nn.Linear(12, 4))


def examples():
    rng = np.random.default_rng(1)
    return (torch.from_numpy(rng.standard_normal((STEPS, BATCH, 2, 8, 8)).astype(np.float32)),
            torch.from_numpy(rng.integers(0, 4, (STEPS, BATCH))))


RECIPES = {
    "fp32": recipes.fp32(), "bfp": recipes.bfp(mantissa=3), "cpt": recipes.cpt(cycles=1), "fast": recipes.fast(),
    "mx": recipes.mx(), "int8": recipes.system("int8"), "fp16": recipes.fp16(),
    "bfp-stochastic": recipes.keep(recipes.bfp(), "bf16", "stochastic"),
    "mx-kahan": recipes.keep(recipes.mx(), "bf16", "kahan"),
    "bfp-bf16": recipes.work_in(recipes.bfp(), "bf16").with_head(4),
}


@pytest.mark.parametrize("name", RECIPES)
def test_steps_in_golden_and_in_torch_end_with_equal_weights(name):
    recipe, model, (x, y) = RECIPES[name], network(), examples()
    exported = export(model, (2, 8, 8))
    conversion = convert(model, recipe, exact=True, seed=5, steps=STEPS)
    optimiser = SGD(conversion.groups(), 0.25, 0.5, format=recipe.kept.format or recipe.work,
                    update=recipe.kept.update, seed=5)
    conversion.attach(optimiser)
    gemms = Gemms(recipe, 5, None, Control(recipe, len(exported.layers), STEPS) if recipe.policies else None)
    number = gemms.arithmetic.number
    state = State(recipe, [tuple(number(each) for each in layer) for layer in exported.parameters], 5, STEPS)
    for images, labels in zip(x, y):
        optimiser.zero_grad()
        cross_entropy(model(images), labels, conversion.numbers).backward()
        optimiser.step()
        found = gradients(gemms, exported.layers, state.parameters, number(exported.features(images)), labels.numpy(),
                          state.steps)
        state.step(*found, 0.25, 0.5)
        after = export(model, (2, 8, 8))
        for ours, golden, before in zip(after.parameters, state.parameters, exported.parameters):
            assert all((a == b).all() for a, b in zip(ours, golden))
            assert (ours[0] != before[0]).any()
    assert conversion.report() == (gemms.control and gemms.control.report())


def test_the_loss_is_that_of_golden():
    logits, labels = torch.randn(7, 5, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    loss = cross_entropy(logits, labels, Numbers("fp32"))
    (2 * loss).backward()
    plain = logits.detach().clone().requires_grad_()
    expected = nn.functional.cross_entropy(plain, labels)
    expected.backward()
    assert torch.allclose(loss, expected) and torch.allclose(logits.grad, 2 * plain.grad, atol=1e-7)
    with pytest.raises(ValueError, match="^softmax is None; allowed: a head, because work is neither fp32 nor fp16"):
        cross_entropy(logits, labels, Numbers(recipes.work_in(recipes.bfp(), "bf16")))
    with pytest.raises(ValueError, match="^shapes is "):
        cross_entropy(logits, labels.float(), Numbers("fp32"))


@pytest.mark.parametrize("flatten", [Flatten, nn.Flatten])
def test_files_start_a_run_of_golden(flatten, tmp_path):
    """Golden's `train` begins with the exported weights: its first measured accuracy is that of the torch model."""
    model, (x, y) = network(flatten), examples()
    exported = export(model, (2, 8, 8))
    recipe = recipes.fp32()
    exported.write(tmp_path / "net.json", tmp_path / "start.npz", recipe)
    images, labels = x.flatten(0, 1), y.flatten()
    features = exported.features(images)
    dataset = Dataset("own", features, labels.numpy(), features, labels.numpy(), 4, (8, 8), 0.1, 2)
    result = train(recipe, dataset, model=find_model(str(tmp_path / "net.json")), start=tmp_path / "start.npz",
                   epochs=1, batch=len(labels), lr=1e-30)
    assert result.layers == exported.layers
    for ours, golden in zip(exported.parameters, result.parameters):
        assert all((a == b).all() for a, b in zip(ours, golden))
    right = (model(images).argmax(1) == labels).double().mean().item()
    assert result.accuracy["train"] == pytest.approx(right)


def test_the_command_line_takes_the_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    export(model, (1, 8, 8)).write("net.json", "start.npz", recipes.bfp())
    work = cli.prepare(["train", "--recipe", "bfp", "--model", "net.json", "--start", "start.npz", "--epochs", "1",
                        "--examples", "64,32"])
    assert not work()


@pytest.mark.parametrize("modules, shape, message", [
    ([nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)], (4,),
     "^module 2 is 'BatchNorm1d'; allowed: Conv2d, Linear, ReLU, Flatten$"),
    ([nn.Linear(4, 4), nn.Linear(4, 2)], (4,), "^module 1 is 'Linear'; allowed: ReLU, which follows each layer but"),
    ([nn.ReLU(), nn.Linear(4, 2)], (4,), "^module 0 is 'ReLU'; allowed: a layer, because ReLU follows a layer$"),
    ([nn.Linear(4, 4), nn.ReLU()], (4,), "^module 1 is 'the last'; allowed: a Linear without a ReLU behind it$"),
    ([nn.Conv2d(1, 2, 3)], (1, 5, 5), "^module 0 is 'the last'; allowed: a Linear without"),
    ([nn.Linear(4, 2, bias=False)], (4,), "^module 0 is 'bias=False'; allowed: a bias$"),
    ([nn.Linear(4, 2)], (5,), r"^module 0 is 'inputs of shape \(5,\)'; allowed: \(4,\)$"),
    ([nn.Conv2d(1, 2, (3, 2))], (1, 5, 5), r"^module 0 is 'Conv2d\(1, 2, kernel_size=\(3, 2\).*a square kernel"),
    ([nn.Conv2d(1, 2, 3, padding="same")], (1, 5, 5), "^module 0 is 'Conv2d.*a square kernel"),
    ([nn.Conv2d(2, 2, 3)], (1, 5, 5), r"^module 0 is 'inputs of shape \(1, 5, 5\)'; allowed: \(2, height, width\)$"),
    ([nn.Flatten()], (4,), r"^module 0 is 'Flatten\(.*allowed: Flatten\(\) of images$"),
    ([], (4,), "^module  is 'the last'; allowed"),
    ([nn.Linear(4, 2)], (4, 4), r"^shape is \(4, 4\); allowed: \(channels, height, width\) or \(features,\)$"),
])
def test_what_does_not_map_is_named(modules, shape, message):
    with pytest.raises(ValueError, match=message):
        export(nn.Sequential(*modules), shape)


def test_what_is_no_sequential_and_no_place_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^model is 'Linear'; allowed: a Sequential$"):
        export(nn.Linear(4, 2), (4,))
    exported = export(nn.Sequential(nn.Linear(4, 2)), (4,))
    with pytest.raises(ValueError, match="net.toml'; allowed: a name that ends in .json$"):
        exported.write(tmp_path / "net.toml", tmp_path / "start.npz", recipes.fp32())
