"""`python -m tests.benchmarks [NAME ...]`: runs benchmarks and writes their sections into the README beside them."""

import argparse
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from . import section_of

README = Path(__file__).parent / "README.md"
SCRIPTS = ("step", "leaves", "trace", "state", "sweep", "instruments", "compiled")


def replace_section(text: str, script: str, section: str) -> str:
    """Returns the README with the section of that script in place of the old one, or at the end."""
    old = re.compile(rf"^## `{script}\.py`.*?(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)
    found = old.search(text)
    if found is None:
        return text.rstrip("\n") + "\n\n" + section
    return (text[: found.start()] + section + "\n" + text[found.end() :]).rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCRIPTS)}; all if none is named")
    names = parser.parse_args().names
    unknown = sorted(set(names) - set(SCRIPTS))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    # Each script runs in a new process, because it sets the number of devices before JAX starts.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name in names or SCRIPTS:
            section = pool.submit(section_of, name).result()
            README.write_text(replace_section(README.read_text(encoding="utf-8"), name, section), encoding="utf-8")


if __name__ == "__main__":
    main()
