"""A command in several processes gives the numbers of one process, and all of its processes end and resume together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import jax
import numpy as np
import pytest

from gradtx import lab
from gradtx.lab import distributed
from gradtx.lab.checkpoints import CheckpointError
from gradtx.lab.distributed import local, of_all_processes, put, whole_mesh
from gradtx.lab.sweep_checkpoint import SweepCheckpoint

SETTINGS = {"steps": 1000, "seeds": 1, "learning_rates": 1}


def test_a_replicated_array_is_on_every_device():
    x = put(jax.sharding.NamedSharding(whole_mesh(), jax.P()), np.arange(3))
    assert len(x.addressable_shards) == 8
    np.testing.assert_array_equal(local(x), [0, 1, 2])


def test_processes_with_other_arguments_are_refused_with_the_difference(tmp_path, monkeypatch):
    described = {"problem": {}, "parameters": [], "transformation": [], "instruments": [], "evaluations": []}
    one, other = ({"settings": {"steps": steps}} | described for steps in (20, 24))
    monkeypatch.setattr("gradtx.lab.sweep_checkpoint.of_all_processes", lambda plain: [one, other])
    with pytest.raises(CheckpointError, match="process 1 of the run has other arguments: its steps is 24, here 20"):
        SweepCheckpoint(tmp_path, one)


def test_every_process_gets_the_values_of_all_processes(monkeypatch):
    assert of_all_processes({"steps": 20}) == [{"steps": 20}]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.multihost_utils, "process_allgather", lambda x: np.stack([x, x]))
    assert of_all_processes(["é", np.inf]) == [["é", np.inf]] * 2


def test_a_sweep_that_leaves_out_processes_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    given = lab.digits(hidden=8), lab.METHODS["sgd"].make_tx, {"learning_rate": [0.1]}
    settings = {"steps": 1, "keys": jax.random.split(jax.random.key(0), 1)}
    with pytest.raises(ValueError, match=r"mesh must hold devices of all 2 processes, got those of \[0\]"):
        lab.sweep(*given, **settings, mesh=whole_mesh())
    with pytest.raises(ValueError, match="a checkpoint that several processes share needs a mesh"):
        lab.sweep(*given, **settings, checkpoint=tmp_path)


def free_port(ports=(0,)):
    for port in ports:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return free.getsockname()[1]
    raise OSError("no port is free")


def start(out, options=lambda process: [], variables=lambda process: {}, processes=2):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    environment |= {"GRADTX_SIGTERM_SECONDS": "100", "JAX_COMPILATION_CACHE_DIR": str(out / "compiled")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    numbers = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    run = [sys.executable, "-m", "gradtx", "compare", "digits", "--methods=momentum", *numbers, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen([*run, *options(i)], env=environment | variables(i), **pipes) for i in range(processes)]


def by_options():
    shared = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process-id"]
    return lambda process: [*shared, str(process)]


def by_slurm():
    """Sets the variables of `srun`. JAX uses the first node as coordinator and derives the port from the job number."""
    job = free_port(range(61440, 65536)) - 61440
    shared = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": 2, "SLURM_STEP_NUM_NODES": 1}
    return lambda process: {
        name: str(value) for name, value in (shared | {"SLURM_PROCID": process, "SLURM_LOCALID": process}).items()
    }


def wait_until(is_true, processes):
    deadline = time.monotonic() + 300
    while not is_true() and time.monotonic() < deadline:
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.slow
def test_all_processes_end_together_and_restarts_give_the_numbers_of_one_process(tmp_path):
    """One run in three parts, as each start of two processes takes long: SIGTERM, a dead process, and the rest."""
    checkpoint = tmp_path / "checkpoints" / "digits-momentum"

    def saved():
        return [
            int(path.parents[0].name)
            for path in checkpoint.glob("*/commit_success.txt")
            if path.parents[0].name.isdecimal()
        ]

    # The signal comes before the training, and the processes react to it after their first chunk.
    both = start(tmp_path, by_options())
    wait_until(checkpoint.exists, both)
    both[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [143, 143], outputs
    for output in outputs:
        assert f"The one under way is saved in {tmp_path / 'checkpoints'}. Start all processes again" in output
        assert "Traceback" not in output
    (first,) = saved()
    assert first % 20  # not a scheduled checkpoint

    coordinator, other = start(tmp_path, by_options())
    wait_until(lambda: saved() not in ([], [first]), [coordinator, other])
    os.kill(coordinator.pid, signal.SIGKILL)
    output, _ = other.communicate(timeout=100)
    coordinator.communicate(timeout=100)
    assert other.returncode == 3, output
    assert "process 1 of 2 ended because another process of the run is gone. Start all processes again" in output
    for word in ("Traceback", "stack trace", "grpc", "coordination_service"):  # messages of the runtime go to a file
        assert word not in output
    assert (tmp_path / "process-1.log").exists() == (f"JAX's messages are in {tmp_path / 'process-1.log'}" in output)
    assert first < max(saved()) < 100

    last = start(tmp_path, lambda process: ["--distributed"], by_slurm())
    outputs = [process.communicate(timeout=300)[0] for process in last]
    assert [process.returncode for process in last] == [0, 0], outputs
    assert "momentum" in outputs[0]
    assert "validation" not in outputs[1]  # only process 0 prints
    (found,) = json.loads((tmp_path / "comparison.json").read_text())["results"]
    (alone,) = lab.compare(lab.digits(), ["momentum"], **SETTINGS).results
    for name in ("train_loss", "validation_loss", "metric"):
        np.testing.assert_allclose(found[name], getattr(alone.sweep, name), rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coordinator", "127.0.0.1:1"], "--coordinator, --processes and --process-id go together"),
        (["--coordinator", "h:1", "--processes", "2", "--process-id", "2"], "--process-id: must be from 0 to 1, got 2"),
        (["--distributed", "--processes", "2"], "--distributed: takes all three from the environment"),
    ],
)
def test_incomplete_options_for_several_processes_are_refused(arguments, message, capsys):
    from gradtx.__main__ import main

    with pytest.raises(SystemExit) as stop:
        main(["compare", "digits", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
