"""Every test sees eight CPU devices, so that sharding is tested wherever the tests run."""

import gc
import itertools
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

# A worker inherits the environment of the process that starts it, so the user's own flags are kept beside the others.
os.environ.setdefault("XLA_FLAGS_OF_USER", os.environ.get("XLA_FLAGS", ""))
os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS_OF_USER"] + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import chex
import jax
import matplotlib
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.comparing import enable_x64
from tests.contexts import share_context
from tests.zoo import ROWS

matplotlib.use("agg")
share_context()

# XLA still simplifies and fuses a program. Its newer code generator and most of LLVM's optimisation of the machine code
# are switched off, so a program is compiled in a quarter of the time.
QUICK_COMPILER = {
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
    "xla_backend_optimization_level": "0",
}
# Notebooks train long enough that machine code of level 0 costs more time than it saves.
QUICK_NOTEBOOK = QUICK_COMPILER | {"xla_backend_optimization_level": "1"}

TESTS_RUN = itertools.count(1)
ROW_NAMES = {row.name for row in ROWS}


def pytest_configure(config):
    """Keeps compiled programs in pytest's cache, as compiling takes most of the time. `--cache-clear` drops them.

    Each worker writes into a separate directory, so that it does not read a file that another worker is writing. Before
    the workers start, the files of each directory are copied into the others.

    The first tier compiles quickly. The second compiles as users do, except for the kernels of notebooks.
    """
    if config.option.markexpr == "not slow":
        # XLA reads the options when JAX is used for the first time.
        os.environ["XLA_FLAGS"] = with_options(os.environ["XLA_FLAGS"], QUICK_COMPILER)
    if folder := getattr(config, "cache", None):
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        if worker is None:
            workers = [f"gw{number}" for number in range(getattr(config.option, "numprocesses", None) or 0)]
            share([folder.mkdir(f"jax-{name}") for name in ("alone", *workers)])
        jax.config.update("jax_compilation_cache_dir", str(folder.mkdir(f"jax-{worker or 'alone'}")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        # Otherwise the key of each program contains the path of the cache, which differs between the workers.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def with_options(flags, options):
    """Adds options to XLA's flags, except those that the user has set and those that this XLA does not know."""
    known = known_options().split()
    return " ".join([flags, *(f"--{name}={value}" for name, value in options.items() if name in known)])


def known_options():
    """The names in `QUICK_COMPILER` that may be set. The first process finds them, and its workers inherit them.

    XLA ends the process at an option that it does not know, so they are tried in a separate process.
    """
    if "XLA_OPTIONS_OF_TESTS" not in os.environ:
        wanted = [name for name in QUICK_COMPILER if name not in os.environ["XLA_FLAGS_OF_USER"]]
        known = wanted if are_known(wanted) else [name for name in wanted if are_known([name])]
        os.environ["XLA_OPTIONS_OF_TESTS"] = " ".join(known)
    return os.environ["XLA_OPTIONS_OF_TESTS"]


def are_known(names):
    flags = " ".join(f"--{name}={QUICK_COMPILER[name]}" for name in names)
    child = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": flags}
    return subprocess.run(child, env=environment, capture_output=True, check=False).returncode == 0


def notebook_environment():
    """The environment of a notebook, as a script or in Jupyter: one device, as users have, and pytest's cache."""
    changed = {"XLA_FLAGS": with_options(os.environ["XLA_FLAGS_OF_USER"], QUICK_NOTEBOOK)}
    if directory := jax.config.jax_compilation_cache_dir:
        changed["JAX_COMPILATION_CACHE_DIR"] = directory
        changed["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        changed["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"
    return os.environ | changed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Lets a notebook in Jupyter use the programs that the first tier compiled when it ran the notebook as a script."""
    if item.path.suffix != ".ipynb":
        return (yield)
    with mock.patch.dict(os.environ, notebook_environment()):
        return (yield)


def share(directories):
    """Copies each file of each directory into the others."""
    files = {path.name: path for directory in directories for path in directory.iterdir()}
    for directory in directories:
        for name in files.keys() - {path.name for path in directory.iterdir()}:
            shutil.copyfile(files[name], directory / name)


@pytest.fixture
def x64():
    """Enables float64 for one test."""
    with enable_x64():
        yield


def pytest_collection_modifyitems(items):
    """Marks slow tests, and puts tests that share programs next to each other.

    Slow are the notebooks that Jupyter runs, the rows of the zoo whose rule another row has too, and most cases of a
    test that is sampled.
    """
    mark_unsampled(items)
    for item in items:
        row = item.callspec.params.get("row") if hasattr(item, "callspec") else None
        if item.path.suffix == ".ipynb" or getattr(row, "is_part_of", ""):
            item.add_marker("slow")
    first = {name: number for number, name in reversed(list(enumerate(group_of(item.nodeid) for item in items)))}
    items.sort(key=lambda item: first[group_of(item.nodeid)])


def pytest_collection_finish():
    """The modules and tests stay until the end, so the garbage collector need not search them again.

    It runs after 20,000 new objects instead of 700, because JAX does some work whenever it runs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_xdist_make_scheduler(config, log):
    """Tests that share programs run on one worker."""
    return ByPrograms(config, log)


class ByPrograms(LoadScopeScheduling):
    """The scheduler of pytest-xdist that hands out whole groups."""

    def _split_scope(self, nodeid):
        return group_of(nodeid)


def group_of(nodeid):
    """Returns the group of a test: its row of the zoo or else its file. A notebook run as a script is its own group."""
    file, _, rest = nodeid.partition("::")
    if file == "tests/test_notebooks.py":
        return nodeid
    if file.startswith("tests/contract/"):
        parts = rest.partition("[")[2].rstrip("]").split("-")
        return next((part for part in parts if part in ROW_NAMES), file)
    return file


def mark_unsampled(items):
    """Puts n cases of a test marked `sampled(n)` into the first tier. They are spread over all cases."""
    cases = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault((item.path, item.originalname), []).append(item)
    for all_cases in cases.values():
        (number,) = all_cases[0].get_closest_marker("sampled").args
        # Steps near the golden section reach all values of each parameter. A round step could always meet the same one.
        step = next(n for n in range(round(0.618 * len(all_cases)), 0, -1) if math.gcd(n, len(all_cases)) == 1)
        kept = {k * step % len(all_cases) for k in range(number)}
        for place, item in enumerate(all_cases):
            if place not in kept:
                item.add_marker("slow")


MOST_MAPS = 40_000  # Linux allows 65,530 for one process, and each program takes a few


def pytest_runtest_teardown():
    """Drops JAX's compiled programs before Linux refuses to map more of them into memory."""
    if next(TESTS_RUN) % 20 == 0 and maps_in_use() > MOST_MAPS:
        jax.clear_caches()
        chex.clear_trace_counter()  # dropped programs have to be traced again
        gc.unfreeze()
        gc.collect()
        gc.freeze()


def maps_in_use():
    """Returns the memory maps of this process, or 0 if the system does not count them."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


def pytest_terminal_summary(terminalreporter):
    """Prints the confusion table of the diagnosis over all labelled runs of `tests/planted.py` in this session."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    properties = (p for r in reports if getattr(r, "when", "") == "call" for p in r.user_properties)
    told = {"diagnosed": [], "cured": []}
    for name, value in properties:
        told.get(name, []).append(value)
    if told["diagnosed"] or told["cured"]:
        terminalreporter.section("diagnosis of the labelled runs")
        terminalreporter.write_line(confusion_table(**told))


def confusion_table(diagnosed, cured):
    """Returns a table with a row per label: its runs, the runs in which it was found (for healthy: nothing was found),
    the other findings, and how many of the runs that were trained again with their remedy were cured."""
    rows = ["| planted | runs | found | named beside it | remedies that cure |", "|---|---|---|---|---|"]
    for label in sorted({label for label, _ in diagnosed + cured}):
        found = [set(challenges) for planted, challenges in diagnosed if planted == label]
        right = sum(not c if label == "healthy" else label in c for c in found)
        beside = Counter(challenge for c in found for challenge in c - {label})
        named = ", ".join(f"{challenge} {count}" for challenge, count in sorted(beside.items()))
        cures = [is_cured for planted, is_cured in cured if planted == label]
        share = f"{sum(cures)} of {len(cures)}" if cures else ""
        rows.append(f"| {label} | {len(found)} | {right} | {named} | {share} |")
    return "\n".join(rows)
