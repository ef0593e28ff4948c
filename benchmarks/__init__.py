"""One script a question, each a module with `main() -> str`: a Markdown section, which it also prints.

`python -m benchmarks` runs them all and writes `benchmarks/README.md`; `python -m benchmarks.step` runs one.
"""

import importlib


def section_of(script: str) -> str:
    """What a script finds out; it prints that itself."""
    return importlib.import_module(f"benchmarks.{script}").main()
