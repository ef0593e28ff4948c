"""A history is a pytree that can be saved, loaded and turned into a table."""

import dataclasses
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import lab


def history(params, readings=None):
    return lab.History(
        loss=np.array([2.0, 1.0, np.nan], np.float32),
        readings={"a/b": np.array([1.0, 2.0, 3.0])} if readings is None else readings,
        params=params,
        opt_state=(jnp.zeros(2),),
        iterates=None,
        batch_sizes=np.array([4, 4, 8]),
        eval_steps=np.array([0, 2, 3]),
        train_loss=np.array([3.0, 1.0, 0.5]),
        validation_loss=np.array([3.5, 1.5, 1.0]),
        metric=np.array([0.1, 0.5, 0.7]),
        diverged_at=1,
        ended="stopped",
        problem="p",
        metric_name="accuracy",
        higher_is_better=True,
    )


VECTOR = {"a/b": np.arange(3.0), "watch@2/norms": np.arange(6.0).reshape(3, 2)}
PARAMS = {
    "whole numbers as keys": {1: jnp.ones(2), 5: {("a", 2): jnp.zeros(1), ("b", 0): jnp.ones(1)}},
    "an empty dict": {},
    "None and empty containers": {"w": jnp.ones(2), "none": None, "list": [], "dict": {}, "tuple": ((), [jnp.ones(1)])},
    "one array": jnp.arange(3.0),
    "nested": {"w": [jnp.ones((2, 2)), {"b": jnp.zeros(())}], "v": (jnp.ones(1), jnp.ones(2))},
    "half precision": {"w": jnp.array([1.5, -2.0], jnp.bfloat16)},
}


@pytest.mark.parametrize("name", PARAMS)
def test_a_saved_history_is_loaded_unchanged(name, tmp_path):
    before = history(PARAMS[name], VECTOR)
    before.save(tmp_path / "h")
    after = lab.History.load(tmp_path / "h")
    for field, value in before.to_dict().items():
        np.testing.assert_equal(getattr(after, field), value, err_msg=field)
    assert after.readings["watch@2/norms"].shape == (3, 2)
    assert after.opt_state is None
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(before.params), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))
    assert jax.tree.structure(after.params) == jax.tree.structure(before.params)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float16"])
def test_a_saved_history_keeps_low_precision_dtypes(dtype, tmp_path):
    low = {name: jnp.asarray([2.0, 1.0, 0.5], dtype) for name in ("loss", "train_loss", "validation_loss", "metric")}
    readings = {"a/b": jnp.ones((3, 2), dtype)}
    before = dataclasses.replace(history(jnp.ones(2, dtype), readings), **low, best_params={"w": jnp.zeros(1, dtype)})
    before.save(tmp_path / "h")
    after = lab.History.load(tmp_path / "h")
    for name, array in (low | readings).items():
        loaded = after.readings[name] if name in readings else getattr(after, name)
        assert loaded.dtype == dtype
        np.testing.assert_array_equal(np.asarray(loaded, float), np.asarray(array, float))
    assert after.params.dtype == after.best_params["w"].dtype == dtype


def test_random_keys_among_the_parameters_are_saved_and_loaded(tmp_path):
    history({"dropout": jax.random.key(3), "w": jnp.ones(1)}).save(tmp_path / "h")
    loaded = lab.History.load(tmp_path / "h").params["dropout"]
    np.testing.assert_array_equal(jax.random.key_data(loaded), jax.random.key_data(jax.random.key(3)))


def test_the_best_step_is_the_first_with_the_best_metric_and_a_nan_is_not_best():
    def at(metric, higher_is_better):
        run = dataclasses.replace(history({}), metric=np.array(metric), higher_is_better=higher_is_better)
        return run.best_step

    assert at([0.5, 0.7, 0.7], True) == 2
    assert at([0.5, 0.7, 0.4], False) == 3
    assert at([np.nan, 0.7, np.nan], True) == 2
    assert at([np.nan] * 3, True) == -1


def test_attributes_of_a_module_are_loaded_as_dictionary_keys(tmp_path):
    model = eqx.filter(eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0)), eqx.is_array)
    history(model).save(tmp_path / "h")
    loaded = lab.History.load(tmp_path / "h").params
    np.testing.assert_array_equal(loaded["layers"][1]["weight"], model.layers[1].weight)


def test_a_history_is_a_pytree_of_its_arrays():
    before = history(PARAMS["nested"], VECTOR)
    doubled = jax.tree.map(lambda x: 2 * x, before)
    np.testing.assert_array_equal(doubled.readings["a/b"], [0, 2, 4])
    np.testing.assert_array_equal(doubled.params["w"][0], 2 * np.ones((2, 2)))
    assert (doubled.ended, doubled.diverged_at, doubled.steps) == ("stopped", 1, 3)


def test_to_dict_holds_curves_and_plain_values_but_not_parameters():
    held = history(PARAMS["nested"]).to_dict()
    assert {"loss", "readings", "metric", "eval_steps", "ended", "problem"} <= set(held)
    assert not {"params", "opt_state"} & set(held)


def test_the_dataframe_has_a_row_per_step_and_a_column_per_number():
    pytest.importorskip("pandas")
    frame = history(PARAMS["nested"], VECTOR).to_dataframe()
    assert list(frame.index) == [0, 1, 2, 3]
    assert {"loss", "batch_size", "a/b", "watch@2/norms[0]", "watch@2/norms[1]", "metric"} <= set(frame.columns)
    np.testing.assert_array_equal(frame["metric"], [0.1, np.nan, 0.5, 0.7])
    np.testing.assert_array_equal(frame["watch@2/norms[1]"][:3], [1, 3, 5])


def test_the_error_for_a_missing_pandas_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="needs pandas: pip install pandas"):
        history(PARAMS["nested"]).to_dataframe()


def test_the_text_of_a_history_is_a_summary_of_a_few_lines():
    text = repr(history({"w": jnp.zeros(2)}, {"gradient_norm/global": np.ones(3)}))
    assert len(text.splitlines()) <= 10
    assert "History of" in text
    assert "gradient_norm/global" in text
