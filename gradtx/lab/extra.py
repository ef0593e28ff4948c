"""The packages that the lab needs. Those of its extra are checked here, before the rest of the lab is imported."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gradtx._core.installing import install

MISSING = [name for name in ("matplotlib", "rich", "sklearn") if find_spec(name) is None]
if MISSING:
    raise ModuleNotFoundError(f"gradtx.lab needs {' and '.join(MISSING)}: {install('lab')}.", name=MISSING[0])


def imported(module: str, message: str) -> Any:
    """A module that few functions need. If it is missing, `message` says how to install it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(message) from error
