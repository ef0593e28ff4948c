"""A learning-rate range test: the loss while the rate grows, and the rates that follow from it."""

import numpy as np

from gradtx import RangeTest

from ..arguments import check_kind
from .style import COLOURS, Picture, headline, light_grid, new_picture, styled


@styled
def plot_range_test(test: RangeTest) -> Picture:
    """Plots the loss after each step over its learning rate, with the rates that `gradtx.lr_range_test` found.

    Args:
        test: the result of `gradtx.lr_range_test`.

    Raises:
        TypeError: if `test` is not such a result.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx import lab
    >>> test = gradtx.lr_range_test(lambda x: jnp.sum(jnp.array([1.0, 20.0]) * x**2) / 2, jnp.ones(2))
    >>> print(lab.plot_range_test(test).get_suptitle())
    The loss falls most steeply at 0.00404 and diverges from 0.1 on.
    """
    check_kind("plot_range_test", "test", test, RangeTest, "which gradtx.lr_range_test returns")
    figure = new_picture(8, 4.6)
    axes = figure.subplots()
    axes.plot(test.learning_rates, test.losses, color=COLOURS[0], label="loss after the step")
    looks = {"steepest": (COLOURS[2], "-"), "minimum": (COLOURS[4], "-."), "divergence": (COLOURS[1], "--")}
    for name, (colour, style) in looks.items():
        rate = getattr(test, name)
        if np.isfinite(rate):
            axes.axvline(rate, color=colour, ls=style, label=f"{name}: {rate:.3g}")
    seen = test.losses[np.isfinite(test.losses)]
    if len(seen):  # without limits, the leap that ends the run would flatten the rest of the curve
        low, high = seen.min(), max(seen[0], np.quantile(seen, 0.9))
        axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    axes.set(xscale="log", xlabel="learning rate (grows at each step)", ylabel="loss")
    light_grid(axes)
    axes.legend(loc="lower left")
    headline(figure, _conclusion(test), 11)
    return figure


def _conclusion(test: RangeTest) -> str:
    if not np.isfinite(test.minimum):
        if test.remark:
            return f"{test.remark[0].upper()}{test.remark[1:]}."
        return "Every learning rate of the range is too high. Start at a lower one."
    parts = [f"falls most steeply at {test.steepest:.3g}"] if np.isfinite(test.steepest) else []
    if test.minimum < test.divergence:  # above `divergence`, the lowest loss has no meaning
        parts.append(f"is lowest at {test.minimum:.3g}")
    parts.append(f"diverges from {test.divergence:.3g} on" if np.isfinite(test.divergence) else "never diverges")
    advice = "" if np.isfinite(test.divergence) else " Test higher rates."
    *first, last = parts
    return f"The loss {', '.join(first)}{' and ' if first else ''}{last}.{advice}"
