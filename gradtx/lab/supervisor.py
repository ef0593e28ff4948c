"""A process that trains, and beside it one that watches it and can say what happened.

When a process of a multi-controller run dies, JAX's runtime ends the others from within, by an abort that no Python
code can catch. So the training runs in a child, and the parent, which needs no runtime, tells the user in a sentence. A
pipe between the two ends the child when the parent is gone: killing either ends both.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

PIPE = "GRADTX_SUPERVISOR_PIPE"  # the reading end's number, in the environment of the child
LOST_ANOTHER = 3  # exit status of a child that noticed by itself that another process is gone, and of its parent
AGAIN = (
    "Start all processes again with the same command: finished methods are kept, "
    "and the one under way goes on from its last checkpoint."
)


def is_supervised() -> bool:
    """Whether this process is the child."""
    return PIPE in os.environ


def supervise(arguments: Sequence[str], name: str) -> int:
    """Runs `python -m gradtx arguments` in a child and waits; the exit status, 3 where a process of the run died."""
    reading, writing = os.pipe()
    environment = os.environ | {PIPE: str(reading)}
    child = subprocess.Popen([sys.executable, "-m", "gradtx", *arguments], env=environment, pass_fds=[reading])
    os.close(reading)
    status = _wait(child)
    os.close(writing)
    if status >= 0 and status != LOST_ANOTHER:
        return status
    what = "ended because another process of the run is gone"
    if status < 0 and -status != signal.SIGABRT:
        what = f"was ended by {signal.Signals(-status).name}"
    print(f"{name} {what}. {AGAIN}", file=sys.stderr, flush=True)
    return LOST_ANOTHER


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The child's status. A terminal sends Ctrl-C to both, and the child knows what to do; SIGTERM is handed on."""
    signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def end_with_supervisor() -> None:
    """In the child: ends this process when the parent's end of the pipe closes."""
    pipe = int(os.environ[PIPE])

    def watch() -> None:
        os.read(pipe, 1)
        os._exit(LOST_ANOTHER)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
