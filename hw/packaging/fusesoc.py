"""FuseSoC's core description file, in its form CAPI2."""

import json

from ..origin import commented
from .module import LIBRARY, VENDOR, VERSION, Packaged

__all__ = ["core"]

CORE = """\
CAPI=2:
{comment}
name: {vendor}:{library}:{name}:{version}
description: {summary}

filesets:
  rtl:
    files: [{file}]
    file_type: verilogSource-2005

targets:
  default: &default
    filesets: [rtl]
    toplevel: {name}

  lint:
    <<: *default
    description: Verilator's lint
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
"""


def core(module: Packaged) -> str:
    """Return the text of ``<name>.core``, with the targets ``default`` and ``lint``."""
    return CORE.format(comment=commented("#"), vendor=VENDOR, library=LIBRARY, name=module.name, version=VERSION,
                       summary=json.dumps(module.summary), file=module.file)
