"""Training over several processes gives the numbers of one process, and resumes bit for bit after a process dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import jax
import numpy as np
import pytest
from gradtx.lab.shared_checkpoint import SharedCheckpoint

import gradtx
from gradtx import lab
from gradtx.lab.distributed import distributed_sweep, local, put, whole_mesh
from tests.comparing import assert_same

pytestmark = pytest.mark.slow  # several processes, or signals to real ones

GRID = {"learning_rate": np.array([0.1, 0.3])}
SETTINGS = {"steps": 20, "keys": jax.random.split(jax.random.key(0), 2), "batch_size": 16, "eval_every": 4}
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def momentum(learning_rate):
    return gradtx.sgd(learning_rate, momentum=0.9)


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))


@pytest.fixture(scope="module")
def digits():
    return lab.digits(hidden=8)


@pytest.fixture(scope="module")
def uninterrupted(digits, tmp_path_factory):
    return distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path_factory.mktemp("whole"), **SETTINGS)


def numbers(sweep):
    names = ("loss", "train_loss", "validation_loss", "metric", "diverged_at", "eval_steps")
    return {name: np.asarray(getattr(sweep, name)) for name in names}


def test_minibatches_split_over_eight_devices_train_like_whole_ones(digits, uninterrupted):
    alone = lab.sweep(digits, momentum, GRID, progress=False, **SETTINGS)
    assert_same(numbers(uninterrupted), numbers(alone), **CLOSE)


class DiedError(Exception):
    pass


@contextmanager
def dies_after(saves, monkeypatch):
    """Makes the process die after this many checkpoints."""
    real, made = SharedCheckpoint.save, []

    def save(self, *args):
        real(self, *args)
        made.append(1)
        if len(made) == saves:
            raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(SharedCheckpoint, "save", save)
        yield


def test_a_sweep_resumed_from_a_checkpoint_is_bit_equal(digits, uninterrupted, tmp_path, monkeypatch):
    with dies_after(2, monkeypatch), pytest.raises(DiedError):
        distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path, **SETTINGS)
    again = distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path, **SETTINGS)
    assert_same(numbers(again), numbers(uninterrupted))
    finished = distributed_sweep(digits, None, GRID, checkpoint=tmp_path, **SETTINGS)  # no training is left
    assert_same(numbers(finished), numbers(uninterrupted))


def test_a_sweep_can_be_resumed_with_another_number_of_devices(digits, uninterrupted, tmp_path, monkeypatch):
    with dies_after(3, monkeypatch), pytest.raises(DiedError):
        distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path, **SETTINGS)
    resumed = distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path, mesh=mesh_of(2), **SETTINGS)
    np.testing.assert_array_equal(resumed.loss[..., :12], uninterrupted.loss[..., :12])
    assert_same(numbers(resumed), numbers(uninterrupted), **CLOSE)


def test_two_devices_read_a_checkpoint_of_eight_devices_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    cut = [jax.sharding.NamedSharding(mesh, jax.P("data")) for mesh in (whole_mesh(), mesh_of(2))]
    writer = SharedCheckpoint(tmp_path, {})
    writer.save(1, {"w": put(cut[0], values)}, {"loss": values})
    done, found, log = SharedCheckpoint(tmp_path, {}).load({"w": put(cut[1], 0 * values)}, {})
    assert done == 1
    assert found["w"].sharding == cut[1]
    np.testing.assert_array_equal(found["w"], values)
    np.testing.assert_array_equal(log["loss"], values)


def test_a_folder_with_the_checkpoint_of_another_run_is_refused_with_the_difference(digits, tmp_path):
    distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="holds another run: its steps is 20, here 24"):
        distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path, **(SETTINGS | {"steps": 24}))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"checkpoint must be a folder, {tmp_path / 'file'} is a file"):
        distributed_sweep(digits, momentum, GRID, checkpoint=tmp_path / "file", **SETTINGS)


def test_a_checkpoint_of_another_method_is_refused_by_name(digits, tmp_path, monkeypatch):
    with dies_after(1, monkeypatch), pytest.raises(DiedError):
        distributed_sweep(digits, gradtx.rmsprop, GRID, checkpoint=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match=r"another transformation: .*ScaleByRmsState.mean.*ScaleByAdagradState.sum"):
        distributed_sweep(digits, gradtx.adagrad, GRID, checkpoint=tmp_path, **SETTINGS)


def test_the_error_for_a_missing_orbax_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ModuleNotFoundError, match=r"distributed runs need Orbax: pip install .*\[checkpoints\]'"):
        SharedCheckpoint(tmp_path, {})


def test_a_replicated_array_is_on_every_device():
    x = put(jax.sharding.NamedSharding(whole_mesh(), jax.P()), np.arange(3))
    assert len(x.addressable_shards) == 8
    np.testing.assert_array_equal(local(x), [0, 1, 2])


# Real processes

COMMAND = ["compare", "digits", "--methods", "momentum", "--steps", "60", "--seeds", "1", "--learning-rates", "1"]


def free_port(ports=(0,)):
    for port in ports:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return free.getsockname()[1]
    raise OSError("no port is free")


def start(out, options=lambda process: [], variables=lambda process: {}, processes=2):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-m", "gradtx", *COMMAND, "--out", str(out)]
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


def assert_trained_as_one_process_would(out, steps=60):
    (found,) = json.loads((out / "comparison.json").read_text())["results"]
    (alone,) = lab.compare(lab.digits(), ["momentum"], steps=steps, seeds=1, learning_rates=1).results
    for name in ("train_loss", "validation_loss", "metric"):
        np.testing.assert_allclose(found[name], getattr(alone.sweep, name), rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_dead_process_ends_the_other_and_a_restart_gives_the_numbers_of_one_process(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "digits-momentum"
    coordinator, other = start(tmp_path, by_options())
    deadline = time.monotonic() + 300
    while not list(checkpoint.glob("steps/*/commit_success.txt")) and time.monotonic() < deadline:
        assert coordinator.poll() is None, coordinator.communicate()[0]
        assert other.poll() is None, other.communicate()[0]
        time.sleep(0.01)
    os.kill(coordinator.pid, signal.SIGKILL)
    output, _ = other.communicate(timeout=100)
    coordinator.communicate(timeout=100)
    assert other.returncode == 3, output
    assert "process 1 of 2 ended because another process of the run is gone. Start all processes again" in output
    for word in ("Traceback", "stack trace", "grpc", "coordination_service"):  # messages of the runtime go to a file
        assert word not in output
    assert (tmp_path / "process-1.log").exists() == (f"JAX's messages are in {tmp_path / 'process-1.log'}" in output)
    assert list(checkpoint.glob("log-*.npz"))
    assert not (checkpoint / "sweep.npz").exists()

    last = start(tmp_path, by_options())
    outputs = [process.communicate(timeout=300)[0] for process in last]
    assert [process.returncode for process in last] == [0, 0], outputs
    assert "momentum" in outputs[0]
    assert "validation" not in outputs[1]  # only process 0 prints
    assert_trained_as_one_process_would(tmp_path)


def test_sigterm_to_one_process_ends_all_of_them_at_a_common_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints" / "digits-momentum"
    long = ["--steps", "10000"]  # five scheduled checkpoints, and seconds between them
    options = by_options()
    both = start(tmp_path, lambda process: [*options(process), *long], lambda _: {"GRADTX_SIGTERM_SECONDS": "100"})
    deadline = time.monotonic() + 300
    while not list(folder.glob("log-*.npz")) and time.monotonic() < deadline:
        assert both[0].poll() is None, both[0].communicate()[0]
        time.sleep(0.01)
    both[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [143, 143], outputs
    for output in outputs:
        assert f"The one under way is saved in {tmp_path / 'checkpoints'}. Start all processes again" in output
        assert "Traceback" not in output
    (log,) = folder.glob("log-*.npz")  # an extra checkpoint
    assert int(log.stem.removeprefix("log-")) % 20
    assert not (folder / "sweep.npz").exists()


def test_processes_take_their_number_from_slurm(tmp_path):
    both = start(tmp_path, lambda process: ["--distributed", "--steps", "10"], by_slurm())
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "momentum" in outputs[0]
    assert "validation" not in outputs[1]
    assert_trained_as_one_process_would(tmp_path, steps=10)


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
