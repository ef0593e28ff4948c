"""What a run tells its user on the way."""

import sys
import warnings


def tell(message: str) -> None:
    """Warns. If warnings are errors it prints to standard error instead, because no run is lost over a warning."""
    try:
        warnings.warn(message, UserWarning, stacklevel=3)
    except UserWarning:
        print(message, file=sys.stderr)
