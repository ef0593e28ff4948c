"""The panels of the page of readings: curves, reference lines, and a sentence on what the curves mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gradtx.instruments.diagnosis.medians import late_median


@dataclass(frozen=True)
class Panel:
    """One panel of the page."""

    title: str
    curves: dict[str, str]  # reading -> label
    meaning: Callable[[Mapping[str, np.ndarray]], str]  # curves -> one or two sentences on what they show
    lines: dict[float, str] = field(default_factory=dict)  # height of a reference line -> its label
    log: bool = False
    limits: tuple[float, float] | None = None


def _describe_loss(curves: Mapping[str, np.ndarray]) -> str:
    loss = curves["loss"]
    known = loss[np.isfinite(loss)]
    if not len(known):
        return "No loss is finite."
    end = float(np.median(known[-max(1, len(known) // 10) :]))
    lost = "" if len(known) == len(loss) or np.isfinite(loss[-1]) else " It ends as NaN or inf."
    word = "fell" if end < known[0] else "rose"
    return (
        f"The loss {word} from {known[0]:.3g} to {end:.3g} (lowest {known.min():.3g}, highest {known.max():.3g}).{lost}"
    )


def _describe_norm(curves: Mapping[str, np.ndarray]) -> str:
    norm = curves["gradient_norm/global"]
    known = norm[np.isfinite(norm)]
    usual, largest, last = float(np.median(known)), float(known.max()), late_median(norm, 0.1)
    said = f"The norm is usually {usual:.2g}, at most {largest:.2g}, and {last:.2g} at the end."
    theta = late_median(curves.get("gradient_tests/norm"))
    if theta > 0.7:
        return f"{said} Most of it is noise, so it cannot show a critical point (§2.2)."
    if np.isnan(theta):
        return f"{said} Its noise was not measured, so it cannot show a critical point (§2.2)."
    is_far = last > 0.3 * np.median(known[: max(1, round(0.1 * len(known)))])
    return f"{said} It is mostly signal" + (", and no critical point is near (§2.2)." if is_far else ".")


def _describe_step(curves: Mapping[str, np.ndarray]) -> str:
    ratio = curves.get("curvature_ratio/ratio")
    if ratio is None:
        last = late_median(curves["sharpness/stability"])
        return f"The sharpness is {last:.2g} times the limit for this learning rate (§2.1)."
    known = ratio[np.isfinite(ratio)]
    past = int(np.sum(np.abs(known) >= 1))
    if past > 0:
        return f"{past:,} of {known.size:,} measured steps are expected to raise the loss (|r| of 1 or more, §2.1)."
    return f"r is about {np.median(known):.2g} and stays below 1. No step is expected to raise the loss (§2.1)."


def _describe_turning(curves: Mapping[str, np.ndarray]) -> str:
    cosine = late_median(curves["gradient_alignment/cosine"])
    meaning = (
        "Each gradient points against the one before (§4.1)" if cosine < -0.5
        else "Consecutive gradients have little in common" if cosine < 0.3
        else "Consecutive gradients agree in part" if cosine < 0.9
        else "Consecutive gradients have nearly the same direction"
    )  # fmt: skip
    return f"The late cosine is {cosine:.2f}. {meaning}."


def _describe_update(curves: Mapping[str, np.ndarray]) -> str:
    size = late_median(curves["update_ratio/global"])
    place = "below" if size < 1e-4 else "above" if size > 1e-2 else "within"
    text = f"The length of the late steps is {size:.1e} times that of the parameters"
    return f"{text}. This is {place} the usual range, 1e-4 to 1e-2."


def _describe_noise(curves: Mapping[str, np.ndarray]) -> str:
    theta = late_median(curves.get("gradient_tests/norm"))
    if np.isnan(theta):
        inner = late_median(curves.get("gradient_tests/inner_product"))
        return f"The slope along the gradient has an error of {inner:.0%} (§3)."
    return f"In the last half noise is {min(theta**2, 1):.0%} of the squared gradient (§2.6, §3)."


def _describe_batch(curves: Mapping[str, np.ndarray]) -> str:
    scale = late_median(curves.get("gradient_noise_scale/noise_scale"), 1.0)
    batch = late_median(curves.get("batch_size"), 1.0)
    if np.isnan(scale):
        return "No signal is left to compare the noise with."
    said = f"Noise and signal are equal in batches of about {scale:.3g} examples"
    return f"{said} (§3.1)." if np.isnan(batch) else f"{said}. Each step uses {batch:.3g} (§3.1)."


def _describe_clipping(curves: Mapping[str, np.ndarray]) -> str:
    fraction = late_median(curves.get("clipping_events/fraction"), 0.1)
    if np.isnan(fraction):
        return "No limit was given, so nothing is clipped."
    rest = ", so the limit sets the step length" if fraction > 0.9 else ""
    return f"At the end {fraction:.0%} of the steps are clipped{rest}."


def _describe_gain(curves: Mapping[str, np.ndarray]) -> str:
    gain, alpha = late_median(curves.get("gain_ratio/gain_ratio")), late_median(curves.get("gain_ratio/alpha"))
    if np.isnan(gain):
        return f"The late steps end at α = {alpha:.2g}: 0 is the minimum along the step, 1 is as high beyond it."
    return f"The late steps gain {gain:.2g} times as much as the derivatives predict."


def _describe_balance(curves: Mapping[str, np.ndarray]) -> str:
    ratio = late_median(curves["stationarity/ratio"], 0.2)
    place = "in equilibrium" if 0.77 < ratio < 1.3 else "not in equilibrium yet"
    return f"The late ratio is {ratio:.2g}, so the run is {place} (§4.1)."


def _describe_path(curves: Mapping[str, np.ndarray]) -> str:
    straight = late_median(curves["trajectory/straightness"], 0.1)
    return f"The distance from start to end is {straight:.0%} of the path's length (§2.7)."


def _describe_slope(curves: Mapping[str, np.ndarray]) -> str:
    slope = late_median(curves.get("plateau/slope"), 0.1)
    error = late_median(curves.get("plateau/slope_standard_error"), 0.1)
    if np.isnan(error):
        return f"The late slope is {slope:.2g} per step (§2.3)."
    word = "still falls" if slope < -2 * error else "rises" if slope > 2 * error else "has stopped falling"
    return f"The late slope is {slope:.2g} ± {error:.1g} per step: the loss {word} (§2.3)."


PANELS: tuple[Panel, ...] = (
    Panel("Loss", {"loss": "minibatch loss"}, _describe_loss, log=True),
    Panel("Gradient norm", {"gradient_norm/global": "‖g‖"}, _describe_norm, log=True),
    Panel("Step against curvature",
          {"curvature_ratio/ratio": "r = -u'Hu / 2 g'u", "sharpness/stability": "ε λ_max / 2"},
          _describe_step, {1.0: "loss rises"}, log=True),
    Panel("Cosine of gradients", {"gradient_alignment/cosine": "cos(g, previous g)"},
          _describe_turning, {-0.5: "oscillation", 0.0: ""}, limits=(-1.05, 1.05)),
    Panel("Size of the update", {"update_ratio/global": "‖Δθ‖ / ‖θ‖"},
          _describe_update, {1e-4: "slow", 1e-2: "fast"}, log=True),
    Panel("Noise against signal",
          {"gradient_tests/norm": "norm test θ", "gradient_tests/inner_product": "inner-product test θ"},
          _describe_noise, {0.5**0.5: "noise = signal"}, log=True),
    Panel("Batch against noise scale",
          {"gradient_noise_scale/noise_scale": "noise scale (examples)", "batch_size": "batch size (examples)"},
          _describe_batch, log=True),
    Panel("Clipping and spikes",
          {"clipping_events/fraction": "fraction clipped", "clipping_events/shrink": "mean shrink factor"},
          _describe_clipping, {1.0: ""}, limits=(-0.05, 1.1)),
    Panel("Gain against prediction",
          {"gain_ratio/gain_ratio": "gained / predicted", "gain_ratio/alpha": "α: 0 minimum, 1 as high again"},
          _describe_gain, {1.0: ""}, limits=(-2, 3)),
    Panel("Equilibrium with the noise", {"stationarity/ratio": "⟨θ·g⟩ / its value at equilibrium"},
          _describe_balance, {1.0: "equilibrium"}, limits=(-3, 5)),
    Panel("Straightness of the path", {"trajectory/straightness": "distance / path length"},
          _describe_path, {1.0: ""}, limits=(-0.05, 1.1)),
    Panel("Slope of the loss",
          {"plateau/slope": "slope per step", "plateau/slope_standard_error": "its standard error"},
          _describe_slope, {0.0: ""}),
)  # fmt: skip
