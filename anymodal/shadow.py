"""A guard: `encoders` and `actors` are common names, so a user's own modules could stand before ours."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

from anymodal.errors import ConfigError

OURS = ("encoders", "actors")


def check_not_shadowed(*names: str) -> None:
    """Raise ConfigError if one of our packages (both by default) would be, or was, imported from somewhere else.

    A package that is not there at all is no shadow: importing it says so by itself.
    """
    home = Path(__file__).resolve().parent.parent
    for name in names or OURS:
        found = _origin(name)
        if found is not None and found.parent != home:
            raise ConfigError(
                f"module {name!r} is {found}, not the one that came with anymodal in {home}",
                fix=f"rename it, or run from another folder and take {found.parent} off PYTHONPATH",
            )


def _origin(name: str) -> Path | None:
    """The folder or file that `import name` yields."""
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else PathFinder.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(list(spec.submodule_search_locations)[0]).resolve()
    return Path(spec.origin).resolve() if spec.origin else None
