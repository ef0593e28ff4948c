"""The command line: `python -m gradtx compare digits`."""

import argparse
import os
import sys

EXTRA = "python -m gradtx needs the lab extra: pip install 'gradtx[lab]'"


def main(argv: list[str] | None = None) -> int:
    """Parses, hands over to the command; returns the exit status, which `--help` explains."""
    _use_every_core()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # here, not at exit, so that a reader that went away (`| head -1`) is seen
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except Exception as error:  # of any kind: JAX's is not Python's
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"python -m gradtx: the memory does not suffice: ask for less at once ({error}).", file=sys.stderr)
        return 1


def _run(words: list[str]) -> int:
    try:
        from gradtx import lab
        from gradtx.lab.cli import compare, diagnose, sweep, trace
        from gradtx.lab.cli.arguments import EXIT_STATUS, add_command
        from gradtx.landscapes import LANDSCAPES
    except ImportError as error:
        print(f"{EXTRA} ({error}).", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(
        prog="python -m gradtx", description="Optimisation methods on real problems.", epilog=EXIT_STATUS
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (compare, sweep, trace, diagnose):
        command.add(commands)
    names = "the problems, methods and landscapes there are"
    listing = add_command(commands, "list", names, f"Prints {names}.")

    def print_names(arguments: argparse.Namespace) -> int:
        for kind, names in (("problems", lab.PROBLEMS), ("methods", lab.METHODS), ("landscapes", LANDSCAPES)):
            print(f"{kind + ':':11}", ", ".join(names))
        return 0

    listing.set_defaults(run=print_names)
    arguments = parser.parse_args(words, argparse.Namespace(words=words))
    return arguments.run(arguments)


def _use_every_core() -> None:
    """On a CPU one device a core, so that sweeps train so many members at a time; this is decided before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={os.cpu_count() or 1}".strip()


if __name__ == "__main__":
    status = main()
    if status == 130:
        sys.stderr.flush()
        os._exit(status)  # XLA may still be computing what was broken off: an orderly exit under it ends in SIGSEGV
    sys.exit(status)
