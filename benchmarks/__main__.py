"""`python -m benchmarks [NAME ...]`: runs the benchmarks and writes their sections into benchmarks/README.md."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent / "README.md"
SCRIPTS = ("step", "leaves", "trace", "state", "sweep", "instruments")


def replace_section(text: str, script: str, section: str) -> str:
    """The README with the section of that script put in the place of the old one, or at the end."""
    old = re.compile(rf"^## `{script}\.py`.*?(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)
    found = old.search(text)
    if found is None:
        return text.rstrip("\n") + "\n\n" + section
    return (text[: found.start()] + section + "\n" + text[found.end() :]).rstrip("\n") + "\n"


def printed(script: str) -> str:
    """The section that a script prints last, also shown as it comes. In a process of its own, as from the command line:
    how many devices there are is settled before JAX starts, and each script settles it for itself."""
    lines = []
    with subprocess.Popen([sys.executable, "-m", f"benchmarks.{script}"], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        sys.exit(f"{script} failed; the sections of those before it are written.")
    everything = "".join(lines)
    return everything[everything.rindex(f"## `{script}.py`") :].rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCRIPTS)}; all if none is named")
    names = parser.parse_args().names
    unknown = sorted(set(names) - set(SCRIPTS))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    for name in names or SCRIPTS:
        section = printed(name)
        README.write_text(replace_section(README.read_text(encoding="utf-8"), name, section), encoding="utf-8")


if __name__ == "__main__":
    main()
