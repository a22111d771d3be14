"""Where built things are kept: simulators and synthesis results, each under the hash of what it was made from."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(kind):
    """Return (and make) the folder for `kind`: ``$NARROWGAUGE_CACHE/kind``, or ``build/kind`` here."""
    folder = Path(os.environ.get("NARROWGAUGE_CACHE", "build")).resolve() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder
