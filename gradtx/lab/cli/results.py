"""The files of a command. Older files are kept under another name, and a failed write does not lose the others."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..archive import whole_file
from ..page.report import checked_path, plotly_js
from ..terminating import ENDING


class Results:
    """The files that a command writes into its folder.

    The folder is made and tested at once, not after the long work. A file of an earlier command is not overwritten: it
    gets a number, such as `sweep-1.npz`, once the new one is written. `report` lists the files that failed. A page that
    `--report` asked for is the last of `paths`; it may be in another folder.
    """

    def __init__(self, parser: argparse.ArgumentParser, out: Path, *names: str, page: Path | None = None) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=out).close()
        except FileExistsError:
            parser.error(f"argument --out: must be a folder, {out} is a file")
        except OSError as error:
            parser.error(f"argument --out: cannot write to {out}: {error.strerror}")
        self.paths = [out / name for name in names]
        if page is not None:
            _check_page(parser, page, self.paths)
            self.paths.append(page)
        for path in self.paths:
            if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
                option = "--report" if path == page else "--out"
                parser.error(f"argument {option}: cannot write to {path}, which is not a writable file")
        self._number = next(n for n in range(1, sys.maxsize) if not any(_numbered(p, n).exists() for p in self.paths))
        self._written: list[Path] = []
        self._kept: list[Path] = []
        self._failed: dict[Path, OSError] = {}

    def write(self, path: Path, write: Callable[[Path], Any]) -> None:
        """Writes one of the files, or writes it again. `report` tells about an error such as a full disk."""
        self._failed.pop(path, None)
        try:
            with ENDING.held(), whole_file(path) as partial:
                write(partial)
                if path not in self._written and path.exists():
                    os.replace(path, _numbered(path, self._number))
                    self._kept.append(path)
        except OSError as error:
            self._failed[path] = error
            return
        if path not in self._written:
            self._written.append(path)

    def report(self) -> int:
        """Prints which files were written, kept and not written. Returns the exit status, 1 if a file is missing."""
        if self._written:
            print(f"wrote {' and '.join(map(str, self._written))}")
        for path in self._kept:
            print(f"kept the older {path} as {_numbered(path, self._number)}")
        for path, error in self._failed.items():
            print(f"cannot write {path}: {error.strerror or error}", file=sys.stderr)
        return 1 if self._failed else 0


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _check_page(parser: argparse.ArgumentParser, page: Path, others: list[Path]) -> None:
    """Exits where the page could not be written after the work: by its place, or because plotly is missing."""
    if page.resolve() in [other.resolve() for other in others]:
        parser.error(f"argument --report: {page} is another result of this command; choose another name")
    try:
        checked_path(page)
        plotly_js()
    except OSError as error:
        parser.error(f"argument --report: {str(error).removeprefix('report: path ')}")
    except ModuleNotFoundError as error:
        parser.exit(1, f"{parser.prog}: error: argument --report: {error}\n")
