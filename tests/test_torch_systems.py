"""What else a user's program does with a model: torch.compile, autocast, DataLoader's workers, two processes."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make torch` installs it and runs these tests")

from narrowgauge.golden import recipes
from narrowgauge.torch import SGD, convert, quantise
from torch import nn
from torch.utils.data import DataLoader, Dataset

RECIPE = recipes.bfp(mantissa=3)


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def step(model, conversion, x, y):
    """Return the logits and the gradients of a step."""
    model.zero_grad()
    z = model(x)
    nn.functional.cross_entropy(z.float(), y).backward()
    conversion.step()
    return [z, *(each.grad.clone() for each in model.parameters())]


def two(exact=False):
    """Return a converted model and a copy of it, with examples."""
    model = network()
    other = copy.deepcopy(model)
    torch.manual_seed(4)
    return ((model, convert(model, RECIPE, exact=exact)), (other, convert(other, RECIPE, exact=exact)),
            torch.randn(4, 3, 8, 8), torch.arange(4))


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.sweep)])
def test_a_compiled_model_has_the_same_bits(backend):
    """Products are left out of graphs, and so is `quantise`."""
    (model, one), (other, two_), x, y = two()
    compiled = torch.compile(other, backend=backend)
    for _ in range(3):  # the step's number changes
        for a, b in zip(step(model, one, x, y), step(compiled, two_, x, y)):
            assert torch.allclose(a, b, atol=1e-6) if backend == "inductor" else (a == b).all()
    assert two_.numbers.report() == one.numbers.report()

    def function(x):
        return quantise(x * 2, "fast-4") + 1

    assert (torch.compile(function, backend=backend)(x) == function(x)).all()


@pytest.mark.parametrize("exact", [False, True])
def test_autocast_leaves_products_alone(exact):
    """Converted layers compute in fp32; what is between them may be narrow, as autocast has it."""
    (model, one), (other, two_), x, y = two(exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = step(other, two_, x, y)
    assert all(each.dtype == torch.float32 for each in found)
    assert all((a == b).all() for a, b in zip(step(model, one, x, y), found))
    half = x.bfloat16().requires_grad_()
    model(half).sum().backward()
    assert half.grad.dtype == torch.bfloat16 and half.grad.abs().sum() > 0


class Rounded(Dataset):
    """Examples that are rounded where they are loaded."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        x = torch.full((40,), 1 / 3) * (index + 1)
        return torch.stack([quantise(x, name) for name in ("bf16", "fast-4", "mxfp4-e2m1", "lns8")])


def test_workers_of_a_loader_round_alike():
    found, expected = (torch.cat(list(DataLoader(Rounded(), batch_size=4, num_workers=count))) for count in (2, 0))
    assert (found == expected).all() and found.shape == (12, 4, 40)


PROGRAM = """
import sys
import torch
import torch.distributed as dist
from narrowgauge.golden import recipes
from narrowgauge.torch import SGD, convert
from torch import nn

rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 4))
start = [each.detach().clone() for each in model.parameters()]
conversion = convert(model, recipes.bfp(), seed=rank + 1)
parallel = nn.parallel.DistributedDataParallel(model)
optimiser = SGD(model.parameters(), 0.25, format="bf16", update="stochastic", seed=1)
conversion.attach(optimiser)
torch.manual_seed(rank)
for _ in range(3):
    optimiser.zero_grad()
    nn.functional.cross_entropy(parallel(torch.randn(8, 40)), torch.arange(8) % 4).backward()
    optimiser.step()
for parameter, before in zip(model.parameters(), start):
    others = [torch.empty_like(parameter) for _ in range(2)]
    dist.all_gather(others, parameter.detach())
    assert (others[0] == others[1]).all() and (others[0] != before).any()
assert conversion.numbers.step == 3 and sum(each["count"] for each in conversion.report()["products"]) == 15
dist.destroy_process_group()
print("equal")
"""


def test_two_processes_end_with_equal_weights(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [subprocess.Popen([sys.executable, "-P", str(program), str(rank), str(tmp_path / "meeting")], text=True,
                                  env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in (0, 1)]
    for process in processes:
        out, error = process.communicate()
        assert out == "equal\n", error[-2000:]


def test_a_copy_and_a_saved_model_keep_their_numbers(tmp_path):
    model = network()
    conversion = convert(model, RECIPE)
    conversion.step()
    torch.save(model, tmp_path / "model.pt")
    for other in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        numbers = {id(each.numbers): each.numbers for each in other.modules() if hasattr(each, "numbers")}
        assert [each.step for each in numbers.values()] == [1] and id(conversion.numbers) not in numbers
    plain = network()
    plain.load_state_dict(model.state_dict())
    SGD(plain.parameters(), 0.1)


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "torch.md").read_text()
    blocks, names = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S), {}
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    assert f"    {capsys.readouterr().out}".replace("\n2", "\n    2") in page
    assert {path.name for path in tmp_path.iterdir()} == {"net.json", "start.npz"}
