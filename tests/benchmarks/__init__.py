"""One script a question, each a module with `main() -> str`: a Markdown section, which it also prints.

`python -m tests.benchmarks` runs all and writes the README beside them; `python -m tests.benchmarks.step` runs one.
"""

import importlib


def section_of(script: str) -> str:
    """What a script finds out; it prints that itself."""
    return importlib.import_module(f"tests.benchmarks.{script}").main()
