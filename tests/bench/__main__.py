"""`make bench`: every benchmark, one JSON line each. Name some to run only those: python -m tests.bench load refresh."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import time
from pathlib import Path


def main(names: list[str]) -> None:
    """Run the modules of this folder that have a function `run`, in the order of their names."""
    folder = Path(__file__).parent
    modules = sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_"))
    for name in modules:
        if names and name not in names:
            continue
        run = getattr(importlib.import_module(f"tests.bench.{name}"), "run", None)
        if run is None:
            continue
        began = time.monotonic()
        for line in run():
            print(json.dumps({"bench": name, **line}), flush=True)
        print(f"# {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
