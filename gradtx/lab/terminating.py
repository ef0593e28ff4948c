"""Makes SIGTERM, which schedulers and `docker stop` send before they kill, end a run as Ctrl-C does.

Python handles a signal only between two of its own instructions, and not while XLA compiles or computes. So `wait_for`
waits for arrays in a way that lets signals be handled, and a thread ends the process if it has not ended by itself
after some seconds (`LIMIT`).
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax

# Seconds from SIGTERM to the end. Senders kill after ten seconds or more. Slurm and Kubernetes wait 30, so there the
# environment variable may be higher.
LIMIT = float(os.environ.get("GRADTX_SIGTERM_SECONDS", "8"))
STATUS = 143  # 128 + SIGTERM, the convention of shells


class Terminated(KeyboardInterrupt):
    """Raised after SIGTERM. It is a `KeyboardInterrupt`, so code that keeps results after Ctrl-C keeps them now."""


class Ending:
    """The state of a request to end this process."""

    def __init__(self) -> None:
        self.is_wanted = False  # SIGTERM was received, here or in another process of the run
        self.is_listening = False
        self.limit = LIMIT
        self.is_shared = False  # several processes end at a common step, so nothing is raised
        self._is_held = self._was_raised = False
        self._is_over = threading.Event()

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """In this block SIGTERM raises `Terminated` once. The process ends after at most `LIMIT` seconds."""
        if self.is_listening or threading.current_thread() is not threading.main_thread():
            yield
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self._handle)
        descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self.is_wanted = self.is_shared = self._is_held = self._was_raised = False
        self.is_listening, self.limit = True, LIMIT
        self._is_over.clear()
        watcher = threading.Thread(target=self._watch, args=(reading,), name="sigterm", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._is_over.set()
            self.is_listening = False
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGTERM, before)
            os.close(writing)
            watcher.join()
            os.close(reading)

    @contextmanager
    def held(self) -> Iterator[None]:
        """In this block SIGTERM waits, so that a result is written completely. The end of the block raises it."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self.is_wanted and not (self.is_shared or self._was_raised):
            self._was_raised = True
            raise Terminated

    def share(self) -> None:
        """From now on SIGTERM and Ctrl-C only set `is_wanted`, and the processes of the run agree on when to end.

        Call this after JAX has joined the run, because JAX installs its own handler of SIGTERM.
        """
        self.is_shared = True
        if self.is_listening:
            signal.signal(signal.SIGTERM, self._handle)
            signal.signal(signal.SIGINT, self._handle)

    def hand_on(self, to: Callable[[], None]) -> None:
        """From now on SIGTERM calls `to`, which ends a child. The child gets one second more than its own limit."""
        self.limit = LIMIT + 1
        signal.signal(signal.SIGTERM, lambda number, frame: to())

    def _handle(self, number: int, frame: Any) -> None:
        if self.is_wanted:
            return  # schedulers send it more than once
        self.is_wanted = True
        if not (self.is_shared or self._is_held):
            self._was_raised = True
            raise Terminated

    def _watch(self, reading: int) -> None:
        """Reads the pipe, into which Python writes each signal's number at once, even if the main thread is busy."""
        while (heard := os.read(reading, 1)) and heard[0] != signal.SIGTERM:
            pass
        if heard and not self._is_over.wait(self.limit):
            text = f"ended by SIGTERM: the work did not stop within {self.limit:.0f} s. Saved results are kept.\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
            os._exit(STATUS)


ENDING = Ending()


def ends_program(interrupt: BaseException) -> bool:
    """Whether the interrupt was SIGTERM in a user's own program, which has to end. A command ends by itself."""
    return isinstance(interrupt, Terminated) and not ENDING.is_listening


@contextmanager
def saving_at_sigterm(is_shared: bool = False) -> Iterator[None]:
    """For a run in a user's own program. SIGTERM raises `Terminated` in this block if it has no other handler.

    If `is_shared`, it only sets `ENDING.is_wanted`, because the processes of the run agree on when to end.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers send it more than once
        if not is_shared:
            raise Terminated
        ENDING.is_wanted = True

    ENDING.is_wanted = False
    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def wait_for(tree: Any) -> None:
    """Waits for arrays. In a command, signals are handled meanwhile; elsewhere it returns, and the caller waits."""
    if not ENDING.is_listening or ENDING.is_shared:
        return
    arrived = threading.Event()

    def block() -> None:
        with suppress(Exception):  # reading the arrays raises the same error
            jax.block_until_ready(tree)
        arrived.set()

    threading.Thread(target=block, name="waiting", daemon=True).start()
    arrived.wait()
