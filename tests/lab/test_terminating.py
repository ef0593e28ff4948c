"""SIGTERM ends a command like Ctrl-C: finished results are kept and reported. The tests send real signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import pytest

from gradtx.__main__ import main
from gradtx.lab.terminating import ENDING, Terminated, wait_for

pytestmark = pytest.mark.slow  # several processes, or signals to real ones


def started(arguments, **environment):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "GRADTX_SIGTERM_SECONDS": "60"} | environment
    return subprocess.Popen([sys.executable, "-m", "gradtx", *arguments], env=environment, **pipes)


def test_sigterm_to_compare_keeps_the_finished_methods(tmp_path):
    few = ["--steps", "4000", "--seeds", "1", "--learning-rates", "1"]
    run = started(["compare", "diabetes", "--methods", "sgd,momentum,adam,adagrad", *few, "--out", str(tmp_path)])
    while "1/4 sgd on diabetes" not in (line := run.stderr.readline()):
        assert line, run.communicate()
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGTERM)  # schedulers send it more than once
    out, err = run.communicate(timeout=100)
    assert run.returncode == 143, err
    assert "of 4 methods were finished and are kept." in err
    assert err.endswith("ended by SIGTERM.\n")
    assert "Traceback" not in err
    saved = [result["method"] for result in json.loads((tmp_path / "comparison.json").read_text())["results"]]
    assert saved == ["sgd", "momentum", "adam", "adagrad"][: len(saved)]
    assert "diabetes: " in out
    assert (tmp_path / "comparison.png").exists()


def in_another_thread(after, what):
    def later():
        time.sleep(after)
        what()

    thread = threading.Thread(target=later)
    thread.start()
    return thread


def test_sigterm_interrupts_a_wait_for_arrays_and_the_handler_is_restored(monkeypatch):
    monkeypatch.setattr("gradtx.lab.terminating.jax.block_until_ready", lambda tree: time.sleep(30))
    before = signal.getsignal(signal.SIGTERM)
    started = time.monotonic()

    def waits():
        with ENDING.on_sigterm():
            in_another_thread(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM))
            wait_for(jnp.ones(1))

    with pytest.raises(Terminated):
        waits()
    assert time.monotonic() - started < 25
    assert signal.getsignal(signal.SIGTERM) is before
    wait_for(jnp.ones(1))  # it does not wait outside a command


def test_a_result_is_written_completely_before_sigterm_ends_the_command():
    done = []

    def writes():
        with ENDING.on_sigterm(), ENDING.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("written")

    with pytest.raises(Terminated):
        writes()
    assert done == ["written"]


def test_a_command_that_does_not_end_after_sigterm_is_ended():
    code = (
        "import time; from gradtx.lab.terminating import ENDING\n"
        "with ENDING.on_sigterm():\n"
        "    ENDING.is_shared = True; print('ready', flush=True); time.sleep(100)"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"GRADTX_SIGTERM_SECONDS": "0.2"}, **pipes)
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143
    assert "ended by SIGTERM: the work did not stop within 0 s. Saved results are kept." in err


def test_sigterm_to_diagnose_keeps_the_steps_that_are_done(tmp_path, capsys, monkeypatch):
    module = sys.modules["gradtx.lab.run"]
    real, calls = module._train_chunk, []

    def chunk(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(module, "_train_chunk", chunk)
    assert main(["diagnose", "quadratic", "--steps", "100", "--out", str(tmp_path)]) == 143
    err = capsys.readouterr().err
    assert err == "interrupted: 8 of 100 steps were done and are diagnosed.\nended by SIGTERM.\n"
    assert (tmp_path / "diagnosis.png").exists()
