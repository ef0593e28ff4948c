"""Every test sees eight CPU devices, so that sharding is tested wherever the tests run."""

import itertools
import os
from collections import Counter

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import matplotlib
import pytest

matplotlib.use("agg")

TESTS_RUN = itertools.count(1)


def pytest_configure(config):
    """Keeps compiled programs, which most of the time goes into, in pytest's cache (`--cache-clear` drops them). Each
    worker has a directory of its own: one might read what another has half written."""
    if cache := getattr(config, "cache", None):
        directory = cache.mkdir("jax-" + os.environ.get("PYTEST_XDIST_WORKER", "alone"))
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture
def x64():
    """float64 on, as `JAX_ENABLE_X64=1`, for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def pytest_runtest_teardown():
    """Drops JAX's compiled programs now and then: each holds a few of the 65,530 maps of memory a process may have."""
    if next(TESTS_RUN) % 100 == 0:
        jax.clear_caches()


def pytest_terminal_summary(terminalreporter):
    """The confusion table of the diagnosis, over all labelled runs of `tests/planted.py` that were made."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    properties = (p for r in reports if getattr(r, "when", "") == "call" for p in r.user_properties)
    diagnosed = [value for name, value in properties if name == "diagnosed"]
    if diagnosed:
        terminalreporter.section("diagnosis of the labelled runs")
        terminalreporter.write_line(confusion_table(diagnosed))


def confusion_table(diagnosed):
    """A row a label: how many runs, in how many it was named (healthy: nothing was), and what was named beside it."""
    rows = ["| planted | runs | found | named beside it |", "|---|---|---|---|"]
    for label in sorted({label for label, _ in diagnosed}):
        found = [set(challenges) for planted, challenges in diagnosed if planted == label]
        right = sum(not c if label == "healthy" else label in c for c in found)
        beside = Counter(challenge for c in found for challenge in c - {label})
        named = ", ".join(f"{challenge} {count}" for challenge, count in sorted(beside.items()))
        rows.append(f"| {label} | {len(found)} | {right} | {named} |")
    return "\n".join(rows)
