"""The command line: `python -m gradtx compare digits`, or `gradtx compare digits`."""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

import gradtx
from gradtx._core.installing import install

BROKEN_OFF = (130, 143)  # exit statuses after Ctrl-C and SIGTERM


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the command. Returns the exit status, which `--help` explains."""
    _use_every_core()
    words = sys.argv[1:] if argv is None else argv
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()  # here, not at exit, so that a closed pipe (`| head -1`) is noticed
    except KeyboardInterrupt:
        _say("interrupted.")
        return 130
    except BrokenPipeError:
        _give_up_on_output()
        return 141
    except OSError as error:
        if error.filename is None:  # printing failed, not a file: `> /dev/full`
            _give_up_on_output()
        _say(f"{_program()}: cannot write to {error.filename or 'standard output'}: {error.strerror}.")
        return 1
    except Exception as error:  # JAX reports missing memory by an error class of its runtime
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _say(f"{_program()}: out of memory: reduce the grid or the batch size ({error}).")
        return 1


def command() -> None:
    """The console script: runs `main` and ends the process."""
    status = main()
    if status in BROKEN_OFF:
        sys.stderr.flush()
        os._exit(status)  # XLA may still be computing, and a normal exit then ends in SIGSEGV
    sys.exit(status)


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:  # before the imports that need an extra
        print(_version())
        return 0
    try:
        from gradtx import lab
        from gradtx.lab.cli import compare, diagnose, sweep, trace
        from gradtx.lab.cli.arguments import EXIT_STATUS, Command
        from gradtx.lab.terminating import ENDING, STATUS
        from gradtx.landscapes import LANDSCAPES
    except ImportError as error:
        _say(f"python -m gradtx needs the lab extra: {install('lab')} ({error}).")
        return 1
    parser = argparse.ArgumentParser(
        prog=_program(), description="Optimisation methods on real problems.", epilog=EXIT_STATUS
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Command)
    for each in (compare, sweep, trace, diagnose):
        each.add(commands)
    names = "the available problems, methods and landscapes"
    listing = commands.add_parser("list", help=names, description=f"Prints {names}.")

    def print_names(arguments: argparse.Namespace) -> int:
        for kind, names in (("problems", lab.PROBLEMS), ("methods", lab.METHODS), ("landscapes", LANDSCAPES)):
            print(f"{kind + ':':11}", ", ".join(names))
        return 0

    listing.set_defaults(run=print_names)
    arguments = parser.parse_args(words, argparse.Namespace(words=words))
    with ENDING.on_sigterm():
        try:
            status = arguments.run(arguments)
        except KeyboardInterrupt:
            if not ENDING.is_wanted:
                raise
            status = 130
        if status == 130 and ENDING.is_wanted:
            _say("ended by SIGTERM.")
            status = STATUS
        return status


def _version() -> str:
    import jax
    import optax

    return f"gradtx {gradtx.__version__} (JAX {jax.__version__}, Optax {optax.__version__})"


def _program() -> str:
    return "gradtx" if Path(sys.argv[0]).stem == "gradtx" else "python -m gradtx"


def _say(text: str) -> None:
    with suppress(OSError):  # standard error may be full or closed as well
        print(text, file=sys.stderr, flush=True)


def _give_up_on_output() -> None:
    """Discards the rest of the output. Otherwise the flush at exit would fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _use_every_core() -> None:
    """Makes one CPU device per core, so that sweeps train one member on each. Must run before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={os.cpu_count() or 1}".strip()


if __name__ == "__main__":
    command()
