"""Trains in a child process, whose parent watches it and reports how it ended.

If a process of a multi-controller run dies, JAX's runtime aborts the others, and Python code cannot catch that. So the
training runs in a child, and the parent, which does not use the runtime, tells the user in a sentence. A pipe between
the two ends the child when the parent is gone, so killing either ends both.
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

PIPE = "GRADTX_SUPERVISOR_PIPE"  # environment variable of the child: the number of the pipe's reading end
LOST_ANOTHER = 3  # exit status of a child that noticed that another process is gone, and of its parent
GONE = "*** Another process of the run is gone. JAX said:"  # the child prints this before such a traceback
# Error lines of the C++ logs, and the first line of a report that ends the process.
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
    """Runs `python -m gradtx arguments` in a child, waits, and returns its exit status, or 3 if a process died.

    JAX's runtime reports such a death with stack traces. They go to the file `log`, and the user sees one sentence.
    """
    reading, writing = os.pipe()
    environment = os.environ | {PIPE: str(reading)}
    command = [sys.executable, "-m", "gradtx", *arguments]
    child = subprocess.Popen(command, env=environment, pass_fds=[reading], stderr=subprocess.PIPE)
    os.close(reading)
    lines: list[str] = []
    relay = threading.Thread(target=_relay, args=(child.stderr, lines), name="relay", daemon=True)
    relay.start()
    status = _wait(child)
    relay.join()
    os.close(writing)
    withheld = "".join(lines)
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
            details = f" JAX's messages are in {log}."
    print(f"{name} {what}. {AGAIN}{details}", file=sys.stderr, flush=True)
    return LOST_ANOTHER


def _relay(stream: Any, withheld: list[str]) -> None:
    """Passes on a child's standard error line by line, but withholds the runtime's report on a dead process."""
    is_fatal = False
    for line in io.TextIOWrapper(stream, errors="replace"):
        is_fatal = is_fatal or bool(FATAL.match(line))
        if is_fatal or NATIVE_ERROR.match(line):
            withheld.append(line)
        else:
            with suppress(OSError):
                sys.stderr.write(line)
                sys.stderr.flush()


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Waits for the child's status. A terminal sends Ctrl-C to the child as well; SIGTERM is handed on to it."""
    ENDING.hand_on(child.terminate)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def end_with_supervisor() -> None:
    """Called in the child. Ends this process when the parent's end of the pipe closes."""
    pipe = int(os.environ[PIPE])

    def watch() -> None:
        os.read(pipe, 1)
        os._exit(LOST_ANOTHER)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
