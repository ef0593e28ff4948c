"""Runs notebooks as scripts in another process."""

import contextlib
import gc
import io
import os
import runpy
import warnings

import matplotlib.pyplot as plt

from tests.contexts import share_context


def start(folder):
    """Prepares a process. Python collects garbage less often in it, as in the tests."""
    os.chdir(folder)
    gc.set_threshold(20_000)
    share_context()


def run(name):
    """Runs a script in a module of its own, without its output. Every warning is an error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("error")
        runpy.run_path(name, run_name="__main__")
    plt.close("all")
