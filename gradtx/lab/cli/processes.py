"""A command that runs in several processes: its options, and the start and end of each process.

If a process of a multi-controller run dies, JAX's runtime aborts the others, and Python code cannot catch that. So each
process trains in a child, and the parent, which does not use the runtime, tells the user in a sentence. A pipe between
the two ends the child when the parent is gone, so killing either ends both.
"""

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from ..checkpoints import CheckpointError
from ..distributed import start
from ..terminating import ENDING, STATUS
from .arguments import address, integer

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


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds the options --coordinator, --processes and --process-id, and --distributed in place of the three."""
    group = parser.add_argument_group(
        "several processes",
        "start the command once in every process; each trains on its part of each minibatch, and the first one prints "
        "and writes",
    )
    listens = "where the first process listens; the same for all"
    group.add_argument("--coordinator", metavar="HOST:PORT", type=address, help=listens)
    group.add_argument("--processes", metavar="N", type=integer(), help="how many there are")
    group.add_argument("--process-id", metavar="I", type=integer(0), help="which one this is, from 0")
    environment = "take all three from the environment: Slurm, Kubernetes, TPU, ..."
    group.add_argument("--distributed", action="store_true", help=environment)


def is_distributed(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> bool:
    """Whether this is one of several processes. Exits if the options contradict each other or one is missing."""
    given = [arguments.coordinator, arguments.processes, arguments.process_id]
    if arguments.distributed and any(x is not None for x in given):
        parser.error("argument --distributed: takes all three from the environment: leave the other options out")
    if any(x is not None for x in given) and any(x is None for x in given):
        parser.error("--coordinator, --processes and --process-id go together")
    if arguments.process_id is not None and arguments.process_id >= arguments.processes:
        parser.error(f"argument --process-id: must be from 0 to {arguments.processes - 1}, got {arguments.process_id}")
    return arguments.distributed or given[0] is not None


def run_processes(parser: argparse.ArgumentParser, arguments: argparse.Namespace, work: Callable[[bool], int]) -> int:
    """Calls `work(is_first)` in a child process that joined the run. The parent waits and reports how it ended."""
    if PIPE not in os.environ:  # this is the parent
        known = arguments.process_id is not None
        name = f"process {arguments.process_id} of {arguments.processes}" if known else "this process"
        number = arguments.process_id if known else os.getpid()
        return _supervise(arguments.words, name, arguments.out / f"process-{number}.log")
    _end_with_parent()
    try:
        try:
            start(arguments.coordinator, arguments.processes, arguments.process_id)
        except ValueError as error:
            parser.error(f"argument --distributed: the environment does not describe the run: {error}")
        ENDING.share()
        status = work(jax.process_index() == 0)
        jax.distributed.shutdown()
    except KeyboardInterrupt:
        status = 130
    except SystemExit as stop:  # an argument that only `work` could check
        status = stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        is_clear = isinstance(error, CheckpointError | ModuleNotFoundError)
        text = str(error.__cause__ or "") if is_clear else str(error)
        lost = ("Gloo", "coordination", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection reset")
        is_lost = any(word in text for word in lost)
        status = LOST_ANOTHER if is_lost else 2 if isinstance(error, CheckpointError) else 1
        if is_lost:
            print(GONE, file=sys.stderr)
        if is_clear and not is_lost:  # the user gets a sentence, not a traceback
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
    if status == 130 and ENDING.is_wanted:
        status = STATUS
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # a normal exit would wait for the other processes, which wait for this one
    return status


def _supervise(arguments: Sequence[str], name: str, log: Path) -> int:
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
    ENDING.hand_on(child.terminate)
    status = None
    while status is None:
        with suppress(KeyboardInterrupt):  # a terminal sends Ctrl-C to the child as well
            status = child.wait()
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


def _end_with_parent() -> None:
    """Called in the child. Ends this process when the parent's end of the pipe closes."""
    pipe = int(os.environ[PIPE])

    def watch() -> None:
        os.read(pipe, 1)
        os._exit(LOST_ANOTHER)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
