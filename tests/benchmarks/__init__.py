"""Each script answers one question. Its `main() -> str` prints and returns a Markdown section.

`python -m tests.benchmarks` runs all and writes the README beside them. `python -m tests.benchmarks.step` runs one.
"""

import importlib


def section_of(script: str) -> str:
    """Runs a script, which prints its section, and returns the section."""
    return importlib.import_module(f"tests.benchmarks.{script}").main()
