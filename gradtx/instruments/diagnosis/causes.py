"""A table of which challenge explains which. Because of it the order of the rules does not matter.

A row is a cause. Each of its entries is an effect that the cause brings about by itself, with the reason. If a run
shows both, the effect is not a finding, but is reported as a consequence of the cause. Causes of causes come first.
"""

from collections.abc import Iterable
from dataclasses import replace

from .report import Finding

_ANYWHERE = "The run was thrown to a far place, and readings from there do not describe the descent."
_OVERSHOOT = "Each step goes past the minimum, so the gradient turns around every time."
_HOVER = "Steps that are too long keep the loss up, even without noise."

EXPLAINS: dict[str, dict[str, str]] = {
    "exploding_gradients": {
        "learning_rate_too_high": "The gradients are so large that no usual learning rate is small enough.",
        "oscillation": _OVERSHOOT,
        **dict.fromkeys(
            ("cliff", "plateau", "saddle", "vanishing_gradients", "ill_conditioning", "wandering", "gradient_noise",
             "stationary", "batch_too_small", "batch_too_large", "learning_rate_too_low", "edge_of_stability"),
            _ANYWHERE,
        ),
    },
    "cliff": dict.fromkeys(
        ("learning_rate_too_high", "plateau", "vanishing_gradients", "saddle", "ill_conditioning", "wandering",
         "gradient_noise", "stationary", "batch_too_small", "learning_rate_too_low", "oscillation",
         "edge_of_stability", "batch_too_large"),
        _ANYWHERE,
    ),
    "learning_rate_too_high": {
        "oscillation": _OVERSHOOT,
        "gradient_noise": _HOVER,
        "stationary": _HOVER,
        "edge_of_stability": "Beyond the edge of stability the loss no longer falls.",
        **dict.fromkeys(
            ("plateau", "saddle", "vanishing_gradients", "ill_conditioning", "wandering", "batch_too_small",
             "batch_too_large", "learning_rate_too_low"),
            _ANYWHERE,
        ),
    },
    "vanishing_gradients": dict.fromkeys(
        ("gradient_noise", "stationary", "batch_too_small", "batch_too_large", "learning_rate_too_low", "wandering",
         "ill_conditioning", "saddle"),
        "No useful gradient reaches the parameters, so only its noise is left.",
    ),
    "plateau": dict.fromkeys(
        ("gradient_noise", "stationary", "batch_too_small", "batch_too_large", "learning_rate_too_low", "wandering",
         "ill_conditioning"),
        "If the loss is flat, steps are short and the gradient is mostly noise.",
    ),
    "learning_rate_too_low": dict.fromkeys(
        ("ill_conditioning", "wandering", "batch_too_large", "batch_too_small", "gradient_noise", "stationary",
         "saddle"),
        "The parameters hardly moved, so all readings describe the start.",
    ),
    "edge_of_stability": {
        "oscillation": _OVERSHOOT,
        "ill_conditioning": "The steepest direction stays at the edge of stability, and all others are flatter.",
    },
    "saddle": dict.fromkeys(
        ("ill_conditioning", "wandering", "gradient_noise", "batch_too_large", "batch_too_small"),
        "Near a saddle the gradient is small, and the curvature along it is that of the way out.",
    ),
    "oscillation": {"wandering": _OVERSHOOT, "batch_too_large": _OVERSHOOT, "gradient_noise": _OVERSHOOT,
                    "stationary": _OVERSHOOT},
    "gradient_noise": dict.fromkeys(
        ("wandering", "ill_conditioning"), "A gradient that is mostly noise points in random directions."
    ),
    "wandering": {"ill_conditioning": "On the way to an asymptote the curvature falls with the gradient."},
    "ill_conditioning": {"batch_too_large": "The flat directions slow the run down, and not the batches."},
}  # fmt: skip

CERTAINTY = {"high": 0, "medium": 1, "low": 2}  # how findings are sorted


def causes_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that no other finding explains, each with its consequences, in the order of the table."""
    left = {found.challenge: found for found in findings}
    for cause, effects in EXPLAINS.items():
        if cause in left:
            explained = {effect: f"{left[effect].title}. {why}" for effect, why in effects.items() if effect in left}
            left[cause] = replace(left[cause], consequences=explained)
            left = {challenge: found for challenge, found in left.items() if challenge not in explained}
    rank = {challenge: i for i, challenge in enumerate([*EXPLAINS, *sorted(left)])}
    # A value that is not finite comes last, because something else has led to it.
    return sorted(left.values(), key=lambda f: (f.challenge == "nonfinite", CERTAINTY[f.confidence], rank[f.challenge]))
