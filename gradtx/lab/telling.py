"""What a run tells its user on the way."""

import sys
import warnings
from contextlib import suppress


def tell(message: str) -> None:
    """Warns. If warnings are errors it prints to standard error instead, because no run is lost over a warning."""
    try:
        warnings.warn(message, UserWarning, stacklevel=3)
    except UserWarning:
        with suppress(OSError):  # standard error may be a file on the disk that is full
            print(message, file=sys.stderr, flush=True)
