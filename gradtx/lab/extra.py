"""Checks, before the rest of the lab is imported, that the packages of its extra are installed."""

from importlib.util import find_spec

from gradtx._core.installing import install

MISSING = [name for name in ("matplotlib", "rich", "sklearn") if find_spec(name) is None]
if MISSING:
    raise ModuleNotFoundError(f"gradtx.lab needs {' and '.join(MISSING)}: {install('lab')}.", name=MISSING[0])
