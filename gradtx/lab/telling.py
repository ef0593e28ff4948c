"""Warnings to the user while a run goes on."""

import sys
import warnings
from contextlib import suppress


def tell(message: str) -> None:
    """Warns. If warnings are errors, it prints to standard error instead, so that a warning does not end a run."""
    try:
        warnings.warn(message, UserWarning, stacklevel=3)
    except UserWarning:
        with suppress(OSError):  # standard error may be a file on a full disk
            print(message, file=sys.stderr, flush=True)
