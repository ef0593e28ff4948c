"""A process that trains, and beside it one that watches it and can say what happened.

When a process of a multi-controller run dies, JAX's runtime ends the others from within, by an abort that no Python
code can catch. So the training runs in a child, and the parent, which needs no runtime, tells the user in a sentence. A
pipe between the two ends the child when the parent is gone: killing either ends both.
"""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .terminating import ENDING

PIPE = "GRADTX_SUPERVISOR_PIPE"  # the reading end's number, in the environment of the child
LOST_ANOTHER = 3  # exit status of a child that noticed by itself that another process is gone, and of its parent
GONE = "*** Another process of the run is gone. JAX said:"  # the child's own word before a traceback of that kind
# Lines of the C++ logs of errors, and the beginning of a report that ends the process.
NATIVE_ERROR = re.compile(r"E\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d [\d:.]+: E ")
FATAL = re.compile(r"F\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d [\d:.]+: F |\*\*\* |Fatal Python error|terminate called")
AGAIN = (
    "Start all processes again with the same command: finished methods are kept, "
    "and the one under way goes on from its last checkpoint."
)


def is_supervised() -> bool:
    """Whether this process is the child."""
    return PIPE in os.environ


def supervise(arguments: Sequence[str], name: str, log: Path) -> int:
    """Runs `python -m gradtx arguments` in a child and waits; the exit status, 3 where a process of the run died.

    What JAX's runtime writes of a death, stack traces and all, goes to the file `log`, and the user reads a sentence.
    """
    reading, writing = os.pipe()
    environment = os.environ | {PIPE: str(reading)}
    command = [sys.executable, "-m", "gradtx", *arguments]
    child = subprocess.Popen(command, env=environment, pass_fds=[reading], stderr=subprocess.PIPE)
    os.close(reading)
    relay = Relay(child.stderr)
    status = _wait(child)
    withheld = relay.withheld()
    os.close(writing)
    if status >= 0 and status != LOST_ANOTHER:
        sys.stderr.write(withheld)
        return status
    what = "ended because another process of the run is gone"
    if status < 0 and -status != signal.SIGABRT:
        what = f"was ended by {signal.Signals(-status).name}"
    details = ""
    if withheld:
        with suppress(OSError):
            log.write_text(withheld, encoding="utf-8")
            details = f" What JAX said is in {log}."
    print(f"{name} {what}. {AGAIN}{details}", file=sys.stderr, flush=True)
    return LOST_ANOTHER


class Relay:
    """Passes on what a child writes to standard error, line by line, and withholds what its runtime says of a death."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._withheld = stream, list[str]()
        self._thread = threading.Thread(target=self._pass_on, name="relay", daemon=True)
        self._thread.start()

    def withheld(self) -> str:
        """What was not passed on, when the child has ended."""
        self._thread.join()
        return "".join(self._withheld)

    def _pass_on(self) -> None:
        is_fatal = False
        for line in io.TextIOWrapper(self._stream, errors="replace"):
            is_fatal = is_fatal or bool(FATAL.match(line))
            if is_fatal or NATIVE_ERROR.match(line):
                self._withheld.append(line)
            else:
                with suppress(OSError):
                    sys.stderr.write(line)
                    sys.stderr.flush()


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The child's status. A terminal sends Ctrl-C to both, and the child knows what to do; SIGTERM is handed on."""
    ENDING.hand_on(child.terminate)
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
