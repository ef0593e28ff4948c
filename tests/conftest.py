"""Every test sees eight CPU devices, so that sharding is tested wherever the tests run."""

import gc
import itertools
import os
import shutil
from collections import Counter
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import chex
import jax
import matplotlib
import pytest

from tests.comparing import enable_x64

matplotlib.use("agg")

TESTS_RUN = itertools.count(1)


def pytest_configure(config):
    """Keeps compiled programs, which most of the time goes into, in pytest's cache (`--cache-clear` drops them).

    Each worker writes into its own directory: one might read what another has half written. Before the workers start,
    each directory gets what the others have.
    """
    if cache := getattr(config, "cache", None):
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        if worker is None:
            workers = [f"gw{number}" for number in range(getattr(config.option, "numprocesses", None) or 0)]
            share([cache.mkdir(f"jax-{name}") for name in ("alone", *workers)])
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir(f"jax-{worker or 'alone'}")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def share(directories):
    """Copies each file of each directory into the others."""
    files = {path.name: path for directory in directories for path in directory.iterdir()}
    for directory in directories:
        for name in files.keys() - {path.name for path in directory.iterdir()}:
            shutil.copyfile(files[name], directory / name)


@pytest.fixture
def x64():
    """`enable_x64` for one test."""
    with enable_x64():
        yield


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Marks what is slow, and keeps tests that share programs on one worker.

    Slow are the notebooks as Jupyter runs them, the rows of the zoo whose rule another row has too, and most cases of a
    test that is sampled. Tests of a row of the zoo share programs, or else those of a file. A notebook that is run as a
    script stands alone.
    """
    mark_unsampled(items)
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if item.path.suffix == ".ipynb" or getattr(params.get("row"), "is_part_of", ""):
            item.add_marker("slow")
        alone = params.get("row") or params.get("notebook") or item.path.relative_to(item.config.rootpath)
        item.add_marker(pytest.mark.xdist_group(str(alone)))
    first = {name: number for number, name in reversed(list(enumerate(map(group_of, items))))}
    items.sort(key=lambda item: first[group_of(item)])


def mark_unsampled(items):
    """Of a test that is marked `sampled(n)`, n cases are in the first tier. They are spread evenly over all cases."""
    cases = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault((item.path, item.originalname), []).append(item)
    for all_cases in cases.values():
        (number,) = all_cases[0].get_closest_marker("sampled").args
        kept = {k * len(all_cases) // number for k in range(number)}
        for place, item in enumerate(all_cases):
            if place not in kept:
                item.add_marker("slow")


def group_of(item):
    return item.get_closest_marker("xdist_group").args[0]


class Memory:
    """How much this process may use, in bytes, before JAX's compiled programs are dropped."""

    limit = 0.2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def pytest_runtest_teardown():
    """Drops JAX's compiled programs when they take much memory, long before Linux refuses to map more of them.

    The allocator keeps much of what is freed, so the next time is when a gigabyte more is in use.
    """
    if next(TESTS_RUN) % 20 == 0 and memory_in_use() > Memory.limit:
        jax.clear_caches()
        chex.clear_trace_counter()  # what is dropped has to be traced again
        gc.collect()
        Memory.limit = max(Memory.limit, memory_in_use() + 1e9)


def memory_in_use():
    """Bytes of this process that are in memory; 0 if the system does not tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def pytest_terminal_summary(terminalreporter):
    """The confusion table of the diagnosis, over all labelled runs of `tests/planted.py` that were made."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    properties = (p for r in reports if getattr(r, "when", "") == "call" for p in r.user_properties)
    told = {"diagnosed": [], "cured": []}
    for name, value in properties:
        told.get(name, []).append(value)
    if told["diagnosed"] or told["cured"]:
        terminalreporter.section("diagnosis of the labelled runs")
        terminalreporter.write_line(confusion_table(**told))


def confusion_table(diagnosed, cured):
    """A row for each label: how many runs, in how many it was named (healthy: nothing was), what was named beside it,
    and of how many that were trained again with their remedy it was gone."""
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
