"""The public names are exactly the listed ones. Each has a docstring and is in the README."""

import inspect
import re
from pathlib import Path

import optax

import gradtx

from .zoo import ROWS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
NAMES = {
    "CriticalPoint", "Diagnosis", "Finding", "RangeTest", "RobbinsMonroReport", "accumulate", "adadelta", "adagrad",
    "adam", "apply_updates_stochastic", "chain", "clip_by_global_norm", "clip_by_norm", "clip_by_value",
    "clipping_events",
    "critical_point", "curvature_ratio", "delta_bar_delta", "diagnose", "early_stopping", "gain_ratio",
    "gradient_alignment", "gradient_noise_scale", "gradient_norm", "gradient_tests", "growing_batch_sizes",
    "heavy_ball", "hessian_trace", "inverse_time_decay", "line_slice", "linear_decay", "lr_range_test",
    "mean_across", "minibatch_feed", "nesterov", "nesterov_eval_params", "newton", "observed", "online_pass", "pack",
    "packed", "panel", "plane_slice", "plateau", "readings", "rmsprop", "robbins_monro", "scale_by_adadelta",
    "scale_by_adagrad", "scale_by_adam", "scale_by_delta_bar_delta", "scale_by_learning_rate", "scale_by_rms",
    "sgd", "sharpness", "shuffled_epochs", "skip_nonfinite", "skip_spikes", "spectral_density", "stale", "stationarity",
    "stored_as", "temporal_gradients", "top_eigenvalues", "trajectory", "update_ratio",
}  # fmt: skip


def public():
    return {name for name, value in vars(gradtx).items() if not name.startswith("_") and not inspect.ismodule(value)}


def test_the_public_names_are_exactly_the_listed_ones():
    assert public() == NAMES


def test_every_public_name_is_in_the_readme():
    assert {name for name in NAMES if not re.search(rf"\b{name}\b", README)} == set()


def test_every_public_name_has_a_docstring_with_an_example():
    for name in NAMES - {"CriticalPoint", "Diagnosis", "Finding", "RangeTest", "RobbinsMonroReport"}:
        assert ">>>" in inspect.getdoc(getattr(gradtx, name)), name


def test_every_transformation_has_a_row_in_the_zoo():
    annotations = {name: str(inspect.signature(getattr(gradtx, name)).return_annotation) for name in NAMES}
    returns = {name for name, text in annotations.items() if "GradientTransformation" in text} - {"RobbinsMonroReport"}
    assert returns == {row.name if row.checked_by else row.factory.__name__ for row in ROWS}


def test_every_transformation_is_a_plain_pair_of_init_and_update():
    for row in ROWS:
        assert type(row.make()) is optax.GradientTransformationExtraArgs, row
        assert not vars(row.make()), row


def test_the_method_table_of_the_readme_is_complete_and_its_state_sizes_are_right():
    rows = re.findall(r"^\| `gradtx\.(\w+)\(([^`]*)\)` \|.*\|$", README, flags=re.MULTILINE)
    in_zoo = {row.factory.__name__ for row in ROWS if row.flips_sign and not row.checked_by}
    assert {name for name, _ in rows} >= in_zoo - {"scale_by_learning_rate"}
    for line in re.findall(r"^\| `gradtx\..*\|$", README, flags=re.MULTILINE):
        call, formula, source, state, twin = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        assert formula
        assert source
        assert twin
        tx = eval(call.strip("`"), {"gradtx": gradtx})  # evaluates the call of the table
        assert sum(x.size > 1 for x in _leaves(tx)) == int(state.split()[0]), call


def _leaves(tx):
    import jax
    import jax.numpy as jnp

    return jax.tree.leaves(tx.init(jnp.zeros(7)))
