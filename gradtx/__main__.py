"""The command line: `python -m gradtx compare digits`."""

import argparse
import os
import sys

EXTRA = "python -m gradtx needs the lab extra: pip install 'gradtx[lab]'"


def main(argv: list[str] | None = None) -> int:
    """Parses, hands over to the command; returns the exit status."""
    _use_every_core()
    try:
        from gradtx import lab
        from gradtx.lab.cli import compare, diagnose, sweep, trace
        from gradtx.landscapes import LANDSCAPES
    except ModuleNotFoundError as error:
        print(f"{EXTRA} ({error.name} is missing).", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(prog="python -m gradtx", description="Optimisation methods on real problems.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (compare, sweep, trace, diagnose):
        command.add(commands)
    listing = commands.add_parser("list", help="the problems, methods and landscapes there are")

    def print_names(arguments: argparse.Namespace) -> int:
        for kind, names in (("problems", lab.PROBLEMS), ("methods", lab.METHODS), ("landscapes", LANDSCAPES)):
            print(f"{kind + ':':11}", ", ".join(names))
        return 0

    listing.set_defaults(run=print_names)
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(words, argparse.Namespace(words=words))
    return arguments.run(arguments)


def _use_every_core() -> None:
    """On a CPU one device a core, so that sweeps train so many members at a time; this is decided before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={os.cpu_count() or 1}".strip()


if __name__ == "__main__":
    sys.exit(main())
