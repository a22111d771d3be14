"""What every run of the tests begins with."""

import gc
import sys
from pathlib import Path

# Of `python -m pytest` in the repository: its folder torch would hide PyTorch.
ROOT = Path(__file__).parents[1]
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]


def pytest_collection_finish(session):
    """Keep the garbage collector from the thousands of tests, which it would look through again and again."""
    gc.collect()
    gc.freeze()
