"""Errors for states that a transformation's own `init` did not make. They name the state and the remedy."""

from typing import Any


def check_state(name: str, state: Any, *fields: str) -> None:
    """Raises unless the state is a tuple that has these fields."""
    if not isinstance(state, tuple) or not all(hasattr(state, field) for field in fields):
        raise foreign_state(name, state, *fields)


def foreign_state(name: str, state: Any, *fields: str) -> TypeError:
    """The error for a state that does not fit. `fields` are some of the fields that it should have."""
    if _is_restored_without_target(state, fields):
        return TypeError(
            f"{name}: the state is a {type(state).__name__}, as a checkpoint restored without a target "
            "gives it back: restore it with the target init(params)."
        )
    if other := optax_state(state):
        return TypeError(
            f"{name}: the state is Optax's {other}, which has other fields: make a new one with init(params)."
        )
    return TypeError(f"{name}: the state is not one that its init made: call update(updates, state, params).")


def optax_state(state: Any) -> str | None:
    """The name of the first of Optax's states in a chain's state, None if there is none."""
    if not isinstance(state, tuple):
        return None
    if hasattr(state, "_fields"):
        return type(state).__name__ if type(state).__module__.startswith("optax.") else None
    return next(filter(None, map(optax_state, state)), None)


def _is_restored_without_target(state: Any, fields: tuple[str, ...]) -> bool:
    """Whether a tuple came back as a list or a dict. The keys are positions, or the fields of a named tuple."""
    if isinstance(state, dict):
        return any(key in fields or str(key).isdigit() or str(key).endswith("_count") for key in state)
    return isinstance(state, list)
