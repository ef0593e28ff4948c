"""Every test sees eight CPU devices, so that sharding is tested wherever the tests run."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import matplotlib
import pytest

matplotlib.use("agg")


@pytest.fixture
def x64():
    """float64 on, as `JAX_ENABLE_X64=1`, for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
