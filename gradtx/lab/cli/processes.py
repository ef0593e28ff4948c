"""The options of a command that runs in several processes, and the start and end of these processes."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable

import jax

from ..checkpoints import CheckpointError
from ..distributed import start
from ..supervisor import GONE, LOST_ANOTHER, end_with_supervisor, is_supervised, supervise
from ..terminating import ENDING, STATUS
from .arguments import address, integer


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds the options --coordinator, --processes and --process-id, and --distributed in place of the three."""
    group = parser.add_argument_group(
        "several processes",
        "start the command once in every process; each trains on its part of each minibatch, and the first one prints "
        "and writes",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", type=address, help="where the first process listens; the same for all"
    )
    group.add_argument("--processes", metavar="N", type=integer(), help="how many there are")
    group.add_argument("--process-id", metavar="I", type=integer(0), help="which one this is, from 0")
    group.add_argument(
        "--distributed", action="store_true", help="take all three from the environment: Slurm, Kubernetes, TPU, ..."
    )


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
    if not is_supervised():
        known = arguments.process_id is not None
        name = f"process {arguments.process_id} of {arguments.processes}" if known else "this process"
        number = arguments.process_id if known else os.getpid()
        return supervise(arguments.words, name, arguments.out / f"process-{number}.log")
    end_with_supervisor()
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
        if is_clear and not is_lost:  # the user gets a sentence, not a traceback
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
            status = 2 if isinstance(error, CheckpointError) else 1
        else:
            if is_lost:
                print(GONE, file=sys.stderr)
            status = LOST_ANOTHER if is_lost else 1
            traceback.print_exc()
    if status == 130 and ENDING.is_wanted:
        status = STATUS
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # a normal exit would wait for the other processes, which wait for this one
    return status
