"""Labelled runs: each has one planted challenge or is healthy, and its truth is known from how it was made.

A *subject* is a loss and the arrays that it needs. All its runs (methods, rates, schedules, starts, noises) are one
compiled program under `vmap`, in which the choice of the method is a number too (`_method`). `Method.tx` makes the same
method with gradtx, and a test compares the two. Readings are those of `gradtx.observed` and of
`gradtx.trajectory`.
"""

import ast
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from gradtx import landscapes
from gradtx.lab.problems import PROBLEMS, characters

HEALTHY = "healthy"
ADAPTIVE = {"adam": 1.0, "rmsprop": 2.0}


@dataclass(frozen=True)
class Method:
    """A method as a user writes it: its kind, rate, schedule and momentum."""

    kind: str  # sgd, momentum, nesterov, adam, rmsprop
    rate: float
    schedule: str = "constant"  # constant, linear, cosine, warmup, early (1 % of the rate after a tenth of the run)
    momentum: float = 0.9

    def __str__(self) -> str:
        shown = "" if self.schedule == "constant" else f" {self.schedule}"
        return f"{self.kind} {self.rate:g}{shown}"

    def rates(self, steps: int) -> np.ndarray:
        """The rate of each step."""
        k = np.arange(steps) / steps
        shapes = {
            "constant": np.ones(steps),
            "linear": 1 - 0.99 * k,
            "cosine": 0.01 + 0.99 * (1 + np.cos(np.pi * k)) / 2,
            "warmup": np.minimum(1, (k + 1 / steps) * 10) * (1 - 0.9 * k),
            "early": np.where(k < 0.05, 1.0, 1e-4),
        }
        return (self.rate * shapes[self.schedule]).astype(np.float32)

    def numbers(self, steps: int) -> dict[str, Any]:
        """The same for `_method`."""
        has_momentum = self.kind in ("momentum", "nesterov")
        return {
            "rates": self.rates(steps),
            "momentum": np.float32(self.momentum if has_momentum else 0.0),
            "is_nesterov": np.float32(self.kind == "nesterov"),
            "adaptive": np.float32(ADAPTIVE.get(self.kind, 0.0)),
        }

    def tx(self, steps: int) -> Any:
        """The same as a transformation of gradtx."""
        rates = jnp.asarray(self.rates(steps))
        rate: Any = self.rate if self.schedule == "constant" else lambda k: rates[jnp.minimum(k, steps - 1)]
        if self.kind in ADAPTIVE:
            return getattr(gradtx, self.kind)(rate)
        return gradtx.sgd(rate, None if self.kind == "sgd" else self.momentum, self.kind == "nesterov")


class _MethodState(NamedTuple):
    first: Any
    second: Any
    method_count: jax.Array


def _method(rates: jax.Array, momentum: jax.Array, is_nesterov: jax.Array, adaptive: jax.Array) -> Any:
    """All methods in one, chosen by numbers."""

    def init(params: Any) -> _MethodState:
        return _MethodState(optax.tree.zeros_like(params), optax.tree.zeros_like(params), jnp.zeros((), jnp.int32))

    def update(g: Any, state: _MethodState, params: Any = None) -> Any:
        del params
        rate, count = rates[state.method_count], state.method_count + 1
        is_adam = adaptive == 1
        keep = jnp.where(is_adam, 0.9, momentum)
        add = jnp.where(is_adam, 0.1, jnp.where(adaptive == 2, 0.0, -rate))
        first = jax.tree.map(lambda m, x: keep * m + add * x, state.first, g)
        rho = jnp.where(is_adam, 0.999, 0.9)
        second = jax.tree.map(lambda v, x: rho * v + (1 - rho) * x**2, state.second, g)

        def step(m: jax.Array, v: jax.Array, x: jax.Array) -> jax.Array:
            adam = -rate * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
            plain = jnp.where(is_nesterov > 0, momentum * m - rate * x, m)
            return jnp.where(is_adam, adam, jnp.where(adaptive == 2, -rate * x / jnp.sqrt(1e-6 + v), plain))

        return jax.tree.map(step, first, second, g), _MethodState(first, second, count)

    return optax.GradientTransformation(init, update)


@dataclass(frozen=True)
class Subject:
    """A loss: parameters, arguments of the run, and one batch (indices of examples, or keys) -> [B] losses."""

    name: str
    losses: Callable[[Any, Any, Any], jax.Array]
    examples: int  # batches are drawn from so many; 0: each batch is fresh keys
    batch: int
    steps: int
    has_iterates: bool = False


@dataclass(frozen=True)
class Case:
    """One run: what is planted, and how."""

    label: str
    subject: Subject
    method: Method
    start: Any
    arguments: Any
    seed: int = 0
    note: str = ""

    def __str__(self) -> str:
        return f"{self.subject.name}, {self.method}, {self.note} {self.seed}".strip()

    def batches(self) -> np.ndarray:
        """[steps, B] indices of shuffled epochs, or seeds."""
        s = self.subject
        rng = np.random.default_rng(self.seed)
        if not s.examples:
            return rng.integers(0, 2**31, (s.steps, s.batch)).astype(np.uint32)
        per = max(1, s.examples // s.batch)
        order = [rng.permutation(s.examples)[: per * s.batch].reshape(per, s.batch) for _ in range(-(-s.steps // per))]
        return np.concatenate(order)[: s.steps].astype(np.int32)

    def known(self) -> dict[str, Any]:
        """What the user knows beside the curves."""
        return {"learning_rate": self.method.rates(self.subject.steps), "batch_size": self.subject.batch}

    def retrained(self, tx: Any) -> dict[str, np.ndarray]:
        """The same run with another optimizer: curves of the loss and all readings."""
        curves = jax.jit(partial(_scan, self.subject, lambda: tx))(self.start, self.arguments, self.batches())
        return self._with_start(jax.tree.map(np.asarray, curves))

    def _with_start(self, curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self.subject.has_iterates:
            return curves
        return curves | {"iterates": np.concatenate([np.asarray(self.start)[None], curves["iterates"]])}


def _scan(subject: Subject, make_tx: Callable[[], Any], start: Any, arguments: Any, batches: jax.Array) -> Any:
    tx = optax.chain(gradtx.observed(make_tx()), gradtx.trajectory())

    def step(carry: Any, batch: jax.Array) -> Any:
        params, state = carry

        def losses(p: Any) -> jax.Array:
            return subject.losses(p, arguments, batch)

        value, g = jax.value_and_grad(lambda p: jnp.mean(losses(p)))(params)
        updates, state = tx.update(g, state, params, value=value, losses_fn=losses)
        params = optax.apply_updates(params, updates)
        seen = {"loss": value, **gradtx.readings((state[0].observed, state[1]))}  # of the instruments, not of `tx`
        return (params, state), (seen | {"iterates": params} if subject.has_iterates else seen)

    return jax.lax.scan(step, (start, tx.init(start)), batches)[1]


def curves_of(cases: list[Case]) -> list[dict[str, np.ndarray]]:
    """The curves of each; the cases of one subject are one program."""
    return _curves(cases, [0] * len(cases), [[]] * len(cases), lambda _: ())


def cured_curves_of(cases: list[Case], remedies: list[str]) -> list[dict[str, np.ndarray]]:
    """The curves of each with its remedy pasted behind the line that makes `tx`; a subject is one program here too.

    The code is run as printed, but for the numbers of `SIZES`, which are arguments of the program.
    """
    taken_out = [_without_sizes(remedy) for remedy in remedies]
    codes = {case.subject: sorted({c for other, (c, _) in zip(cases, taken_out, strict=True)
                                   if other.subject == case.subject}) for case in cases}  # fmt: skip
    which = [codes[case.subject].index(code) for case, (code, _) in zip(cases, taken_out, strict=True)]
    return _curves(cases, which, [sizes for _, sizes in taken_out], lambda subject: tuple(codes[subject]))


SIZES = ("scale", "clip_by_global_norm", "heavy_ball")  # functions whose number may be traced


def _without_sizes(remedy: str) -> tuple[str, list[float]]:
    """The code with `sizes[0]`, `sizes[1]`, ... in place of the numbers given to `SIZES`, and these numbers."""
    tree, sizes = ast.parse(remedy), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SIZES:
            sizes.append(ast.literal_eval(node.args[0]))
            node.args[0] = ast.parse(f"sizes[{len(sizes) - 1}]", mode="eval").body
    return ast.unparse(tree), sizes


def _curves(
    cases: list[Case], which: list[int], sizes: list[list[float]], codes_of: Callable[[Subject], tuple[str, ...]]
) -> list[dict[str, np.ndarray]]:
    found: dict[int, dict[str, np.ndarray]] = {}
    for subject in dict.fromkeys(case.subject for case in cases):
        mine, codes = [i for i, case in enumerate(cases) if case.subject == subject], codes_of(subject)
        rows = [
            (c.method.numbers(subject.steps), c.start, c.arguments, c.batches(), np.int32(which[i]),
             np.array((sizes[i] + [0.0, 0.0])[:2], np.float32))
            for i, c in ((i, cases[i]) for i in mine)
        ]  # fmt: skip
        stacked = jax.tree.map(lambda *row: np.stack([np.asarray(r, np.asarray(row[0]).dtype) for r in row]), *rows)

        @jax.jit
        @jax.vmap
        def run(row: Any, subject: Subject = subject, codes: tuple[str, ...] = codes) -> Any:
            numbers, start, arguments, batches, which, sizes = row
            return _scan(subject, lambda: _cured(codes, which, sizes, _method(**numbers)), start, arguments, batches)

        curves = jax.tree.map(np.asarray, run(stacked))
        for place, i in enumerate(mine):
            found[i] = cases[i]._with_start({name: curve[place] for name, curve in curves.items()})
    return [found[i] for i in range(len(cases))]


def _cured(codes: tuple[str, ...], which: jax.Array, sizes: jax.Array, tx: Any) -> Any:
    """What `tx` is after the one of these remedies that is chosen; `tx` itself if there is none."""
    if not codes:
        return tx
    cured = []
    for code in codes:
        names = {"tx": tx, "gradtx": gradtx, "optax": optax, "sizes": sizes}
        exec(code, names)
        cured.append(optax.with_extra_args_support(names["tx"]))

    def init(params: Any) -> Any:
        return tuple(one.init(params) for one in cured)

    def update(g: Any, states: Any, params: Any = None, **extra: Any) -> Any:
        found = [one.update(g, state, params, **extra) for one, state in zip(cured, states, strict=True)]
        updates = jax.tree.map(lambda *each: jax.lax.select_n(which, *each), *(u for u, _ in found))
        return updates, tuple(state for _, state in found)

    return optax.GradientTransformationExtraArgs(init, update)


# Subjects.


def _bowl_losses(x: Any, arguments: Any, batch: Any) -> jax.Array:
    noise = jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), x.shape))(batch)
    return 0.5 * jnp.sum(arguments["curvatures"] * x**2) + arguments["noise"] * noise @ x + arguments["bottom"]


BOWL = Subject("bowl", _bowl_losses, 0, 8, 300)


def bowl(condition: float, *, noise: float = 0.0, bottom: float = 0.0, start: float = 1.0, dim: int = 10) -> Any:
    """½ Σ h x² with curvatures from 1 to `condition`, and noise of that size in each example's gradient."""
    curvatures = np.geomspace(1.0, condition, dim)
    return {"start": np.full(dim, start, np.float32),
            "arguments": {"curvatures": curvatures.astype(np.float32), "noise": np.float32(noise),
                          "bottom": np.float32(bottom)}}  # fmt: skip


def _two_wells(x: jax.Array) -> jax.Array:
    """A saddle at the origin, 0.25 high, between wells at x = ±1."""
    return (x[0] ** 2 - 1) ** 2 / 4 + 2.0 * x[1] ** 2


def _shallow_wells(x: jax.Array) -> jax.Array:
    """The saddle is a hundredth of the start's height above the wells."""
    return 0.02 * (x[0] ** 2 - 1) ** 2 / 4 + x[1] ** 2


def _log_density(x: jax.Array) -> jax.Array:
    """The negative logarithm of a narrow normal density: it ends below 0."""
    return 0.5 * jnp.sum(x**2) / 0.05**2 * 1e-3 + 2 * jnp.log(0.05) + 1.0


FUNCTIONS: dict[str, tuple[Callable[[jax.Array], jax.Array], list[float]]] = {
    name: (f, [float(v) for v in f.start])
    for name, f in {
        "rosenbrock": landscapes.rosenbrock, "beale": landscapes.beale, "himmelblau": landscapes.himmelblau,
        "double_well": landscapes.double_well, "saddle": landscapes.saddle,
        "monkey_saddle": landscapes.monkey_saddle, "plateau": landscapes.plateau, "cliff": landscapes.cliff,
        "asymptote": landscapes.asymptote_hill,
    }.items()
} | {
    "two wells": (_two_wells, [1e-3, 1.0]),
    "shallow wells": (_shallow_wells, [1e-2, 1.0]),
    "log density": (_log_density, [1.0, -1.0]),
    "booth": (lambda x: (x[0] + 2 * x[1] - 7) ** 2 + (2 * x[0] + x[1] - 5) ** 2, [-3.0, -3.0]),
    "bent valley": (lambda x: 0.5 * (x[0] - 3) ** 2 + 500 * (x[1] - jnp.sin(x[0])) ** 2, [-2.0, -0.9093]),
    "Gaussian well": (lambda x: 1 - jnp.exp(-jnp.sum(x**2) / 2), [3.5, 0.5]),
    "steep valley": (lambda x: (1 - x[0]) ** 2 + 1000 * (x[1] - x[0] ** 2) ** 2, [-1.2, 1.0]),
}  # fmt: skip
_ORDER = list(FUNCTIONS)


def _function_losses(x: Any, arguments: Any, batch: Any) -> jax.Array:
    value = jax.lax.switch(arguments["which"], [f for f, _ in FUNCTIONS.values()], x)
    return arguments["scale"] * value[None] + 0 * batch


WALK = Subject("function", _function_losses, 0, 1, 500, has_iterates=True)


def function(name: str, start: list[float] | None = None) -> Any:
    """A function of two numbers."""
    return {"start": np.array(FUNCTIONS[name][1] if start is None else start, np.float32), "note": name,
            "arguments": {"which": np.int32(_ORDER.index(name)), "scale": np.float32(1.0)}}  # fmt: skip


def _stream_losses(w: Any, arguments: Any, batch: Any) -> jax.Array:
    def one(seed: jax.Array) -> jax.Array:
        drawn = jax.random.normal(jax.random.key(seed), (9,))
        return 0.5 * (drawn[:8] @ w - arguments["noise"] * drawn[8]) ** 2

    return jax.vmap(one)(batch)


STREAM = Subject("stream by twos", _stream_losses, 0, 2, 600)


def stream(noise: float) -> Any:
    """Least squares on fresh examples, x of 8 normal numbers. B_simple is (9 |w|² + 8 noise²) / |w|²."""
    return {"start": np.ones(8, np.float32), "arguments": {"noise": np.float32(noise)}}


DIGITS = PROBLEMS["digits"]()
IMAGES, DIGIT = (np.asarray(a) for a in DIGITS.train)
_UNITS = [jnp.tanh, jax.nn.relu, jax.nn.sigmoid]


def _classified(logits: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def _net_losses(layers: Any, arguments: Any, batch: Any) -> jax.Array:
    x = arguments["columns"] * jnp.asarray(IMAGES)[batch]
    x = jnp.where((batch == arguments["bad"])[:, None], jnp.nan, x)
    y = jnp.where(arguments["shuffled"] > 0, arguments["labels"][batch], jnp.asarray(DIGIT)[batch])
    for w, b in layers[:-1]:
        h = x @ w + b
        x = jax.lax.switch(arguments["unit"], _UNITS, h)
    w, b = layers[-1]
    return _classified(x @ w + b, y)


def net(
    widths: tuple[int, ...] = (24,),
    *,
    size: float = 1.0,
    unit: int = 0,
    bias: float = 0.0,
    kept: float = 1.0,
    bad: int = -1,
    columns: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
    start: Any = None,
    note: str = "",
) -> Any:
    """Digits: weights of `size` / √n, biases of hidden units at `bias`; a share `kept` of the labels is true."""
    rng = np.random.default_rng(seed)
    sizes = [64, *widths, 10]
    layers = [
        ((size * rng.normal(size=(n, m)) / n**0.5).astype(np.float32),
         np.full(m, bias if i < len(widths) else 0.0, np.float32))
        for i, (n, m) in enumerate(itertools.pairwise(sizes))
    ]  # fmt: skip
    labels = np.where(rng.random(len(DIGIT)) < kept, DIGIT, rng.integers(0, 10, len(DIGIT))).astype(np.int32)
    arguments = {
        "unit": np.int32(unit), "shuffled": np.float32(kept < 1), "labels": labels, "bad": np.int32(bad),
        "columns": np.geomspace(*columns, 64).astype(np.float32),
    }  # fmt: skip
    return {"start": layers if start is None else start, "arguments": arguments, "note": note}


NET = Subject("net", _net_losses, len(DIGIT), 32, 300)
DEEP = Subject("deep net", _net_losses, len(DIGIT), 32, 150)
PAIRS = Subject("net by twos", _net_losses, len(DIGIT), 2, 400)
WHOLE = Subject("net by 1,024", _net_losses, len(DIGIT), 1024, 100)


def _regression_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(a) for a in PROBLEMS[name]().train)
    return x[:256], y[:256].astype(np.float32)


TABLES = {name: _regression_data(name) for name in ("diabetes",)}
_X, _Y = TABLES["diabetes"]


def _line_losses(w: Any, arguments: Any, batch: Any) -> jax.Array:
    x = jnp.asarray(_X)[batch] * arguments["columns"]
    y = jnp.asarray(_Y)[batch]
    return 0.5 * (x @ w[:-1] + w[-1] - y) ** 2


LINE = Subject("diabetes", _line_losses, len(_X), len(_X), 200)
LINE_BY_EIGHTS = Subject("diabetes by eights", _line_losses, len(_X), 8, 400)


def line(columns: float = 1.0) -> Any:
    """Linear regression; the sizes of the columns fall to `columns`."""
    return {"start": np.zeros(_X.shape[1] + 1, np.float32),
            "arguments": {"columns": np.geomspace(1.0, columns, _X.shape[1]).astype(np.float32)}}  # fmt: skip


def steepest(columns: float = 1.0) -> float:
    """λ_max of the regression's Hessian."""
    x = np.concatenate([_X * np.geomspace(1.0, columns, _X.shape[1]), np.ones((len(_X), 1))], axis=1)
    return float(np.linalg.eigvalsh(x.T @ x / len(x))[-1])


def _sequences() -> tuple[np.ndarray, np.ndarray]:
    x, _ = PROBLEMS["adding"]().train
    x = np.asarray(x)[:512, :16]
    return x, (x[..., 0] * (x[..., 1] > 0)).sum(1).astype(np.float32)


_SEQUENCES, _SUMS = _sequences()


def _recurrent_losses(p: Any, arguments: Any, batch: Any) -> jax.Array:
    x, y = jnp.asarray(_SEQUENCES)[batch], jnp.asarray(_SUMS)[batch]

    def step(h: jax.Array, inputs: jax.Array) -> Any:
        return jax.nn.relu(inputs @ p["w_in"] + h @ p["w"] + p["b"]), None

    h, _ = jax.lax.scan(step, jnp.zeros((len(x), p["b"].shape[0])), jnp.swapaxes(x, 0, 1), unroll=4)
    return 0.5 * arguments["one"] * (h @ p["w_out"] - y) ** 2


RECURRENT = Subject("recurrent net", _recurrent_losses, len(_SUMS), 32, 300)


def recurrent(rho: float, out: float = 0.1, seed: int = 0) -> Any:
    """Sixteen rectifiers whose matrix starts at ρ times the identity."""
    rng = np.random.default_rng(seed)
    p = {"w_in": rng.normal(size=(2, 16)) / 2**0.5, "w": rho * np.eye(16), "b": np.zeros(16),
         "w_out": out * rng.normal(size=16)}  # fmt: skip
    return {"start": jax.tree.map(lambda a: a.astype(np.float32), p), "arguments": {"one": np.float32(1.0)},
            "note": f"rho {rho:g}"}  # fmt: skip


_TEXT = characters(context=8, width=16, heads=2, layers=1)
_WINDOWS = jax.tree.map(lambda a: np.asarray(a)[:2048], _TEXT.train)


def _text_losses(p: Any, arguments: Any, batch: Any) -> jax.Array:
    return arguments["one"] * _TEXT.losses(p, jax.tree.map(lambda a: jnp.asarray(a)[batch], _WINDOWS))


TRANSFORMER = Subject("transformer", _text_losses, 2048, 16, 200)


def transformer(seed: int = 0) -> Any:
    """A language model of one layer."""
    return {"start": jax.tree.map(np.asarray, _TEXT.init(jax.random.key(seed))), "arguments": {"one": np.float32(1.0)}}


def _letters_losses(p: Any, arguments: Any, batch: Any) -> jax.Array:
    x, y = (jnp.asarray(a)[batch] for a in _WINDOWS)
    h = jnp.tanh(p["letters"][x].reshape(len(batch), -1) @ p["w"])
    return _classified(arguments["one"] * (h @ p["v"]), y[:, -1])


LETTERS = Subject("letters", _letters_losses, 2048, 32, 300)


def letters() -> Any:
    """The next letter of a text from eight letters, by one hidden layer."""
    rng, count = np.random.default_rng(1), 1 + max(int(a.max()) for a in _WINDOWS)
    p = {"letters": rng.normal(size=(count, 8)), "w": rng.normal(size=(64, 32)) / 8,
         "v": 0.3 * rng.normal(size=(32, count)) / 32**0.5}  # fmt: skip
    return {"start": jax.tree.map(lambda a: a.astype(np.float32), p), "arguments": {"one": np.float32(1.0)}}


# The runs.

HIGH, LOW, ILL = "learning_rate_too_high", "learning_rate_too_low", "ill_conditioning"
EXPLODES, VANISHES = "exploding_gradients", "vanishing_gradients"


def cases() -> list[Case]:
    """Every labelled run."""
    return [*_bowls(), *_functions(), *_nets(), *_lines(), *_recurrents(), *_transformers(), *_others()]


def _many(label: str, subject: Subject, what: Any, *methods: Method, seeds: int = 1) -> list[Case]:
    note = what.get("note", "")
    return [Case(label, subject, m, what["start"], what["arguments"], seed, note)
            for m in methods for seed in range(seeds)]  # fmt: skip


def _bowls() -> list[Case]:
    M = Method

    def on(label: str, what: Any, *methods: Method, seeds: int = 1) -> list[Case]:
        return _many(label, BOWL, what, *methods, seeds=seeds)

    return [
        *on(HEALTHY, bowl(10), M("sgd", 0.1), M("momentum", 0.25), M("nesterov", 0.1), M("adam", 0.03),
            M("adam", 0.1, "cosine"), M("rmsprop", 0.02, "linear")),
        *on(HEALTHY, bowl(10, bottom=-50.0), M("sgd", 0.15), M("adam", 0.05, "linear")),
        *on(HEALTHY, bowl(10, noise=0.1), M("sgd", 0.05, "linear"), M("momentum", 0.01), M("adam", 0.03, "cosine")),
        *on(HEALTHY, bowl(3, noise=0.5, start=0.0), M("sgd", 0.01), M("adam", 0.001), seeds=2),
        *on(HIGH, bowl(10), M("sgd", 0.22), M("sgd", 0.3), M("momentum", 0.4), M("nesterov", 0.15),
            M("rmsprop", 3.0)),
        *on(LOW, bowl(10), M("sgd", 1e-5), M("sgd", 1e-4), M("momentum", 1e-5), M("adam", 1e-5), M("rmsprop", 1e-5),
            M("sgd", 0.1, "early"), M("adam", 0.02, "early")),
        *on("oscillation", bowl(10), M("sgd", 0.198), M("sgd", 0.1995)),
        *on(ILL, bowl(1e3), M("sgd", 1.5e-3), M("sgd", 0.8e-3), M("momentum", 1.5e-4, momentum=0.5)),
        *on(ILL, bowl(1e4), M("sgd", 1.5e-4), M("momentum", 1e-4)),
        *on(ILL, bowl(2e3, dim=10), M("sgd", 0.9e-3)),
        *on("gradient_noise", bowl(1, noise=3.0, start=1.5), M("sgd", 0.2), M("momentum", 0.03), seeds=2),
        *on("gradient_noise", bowl(10, noise=8.0), M("sgd", 0.05), M("adam", 0.3), M("rmsprop", 0.2), seeds=2),
    ]  # fmt: skip


def _functions() -> list[Case]:
    M = Method

    def on(label: str, name: str, *methods: Method, start: list[float] | None = None) -> list[Case]:
        return _many(label, WALK, function(name, start), *methods)

    return [
        *on(HEALTHY, "himmelblau", M("sgd", 0.01), M("adam", 0.1), M("momentum", 0.003)),
        *on(HEALTHY, "double_well", M("sgd", 0.1), M("adam", 0.03)),
        *on(HEALTHY, "log density", M("sgd", 0.5), M("adam", 0.03), M("momentum", 0.3)),
        *on(HEALTHY, "rosenbrock", M("adam", 0.05), M("adam", 0.1, "cosine")),
        *on(HEALTHY, "two wells", M("sgd", 0.1), M("adam", 0.03), start=[0.6, 1.0]),
        *on(HEALTHY, "booth", M("sgd", 0.05), M("momentum", 0.02), M("nesterov", 0.03)),
        *on(HIGH, "himmelblau", M("sgd", 0.05), M("sgd", 0.3), M("momentum", 0.05), M("nesterov", 0.05)),
        *on(HIGH, "booth", M("rmsprop", 5.0), M("nesterov", 0.09)),
        *on(LOW, "himmelblau", M("sgd", 1e-6), M("adam", 1e-5)),
        *on(LOW, "beale", M("sgd", 1e-5), M("rmsprop", 1e-6)),
        *on(ILL, "rosenbrock", M("sgd", 0.0015), M("sgd", 0.001)),
        *on(ILL, "beale", M("sgd", 0.01)),
        *on(ILL, "bent valley", M("sgd", 6e-4), M("sgd", 8e-4), M("momentum", 5e-4, momentum=0.5)),
        *on(ILL, "steep valley", M("sgd", 1.5e-4), M("momentum", 3e-5, momentum=0.5)),
        *on("saddle", "saddle", M("sgd", 0.02), M("momentum", 0.002)),
        *on("saddle", "two wells", M("sgd", 0.05), M("sgd", 0.1), M("momentum", 0.01), M("momentum", 0.03)),
        *on("saddle", "two wells", M("sgd", 0.1), start=[1e-6, 0.5]),
        *on("saddle", "shallow wells", M("sgd", 0.8), M("momentum", 0.1)),
        *on("saddle", "monkey_saddle", M("sgd", 0.01)),
        *on("saddle", "double_well", M("momentum", 0.02)),
        *on("plateau", "Gaussian well", M("sgd", 0.5), M("momentum", 0.05)),
        *on("plateau", "plateau", M("sgd", 0.5), M("sgd", 1.0), M("momentum", 0.1)),
        *on("cliff", "cliff", M("sgd", 1.0), M("sgd", 2.0), M("sgd", 5.0), M("momentum", 0.2)),
        *on("wandering", "asymptote", M("sgd", 0.1), M("sgd", 0.2), M("momentum", 0.02)),
    ]  # fmt: skip


def trained_net() -> Any:
    """Weights that fit the digits, to go on from."""
    what = net()
    weights = what["start"]
    x, y = jnp.asarray(IMAGES), jnp.asarray(DIGIT)
    tx = optax.adam(0.01)

    def loss(layers: Any) -> jax.Array:
        (w, b), (v, c) = layers
        return jnp.mean(_classified(jnp.tanh(x @ w + b) @ v + c, y))

    @jax.jit
    def run(p: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            p, s = carry
            u, s = tx.update(jax.grad(loss)(p), s)
            return (optax.apply_updates(p, u), s), None

        return jax.lax.scan(step, (p, tx.init(p)), length=400)[0][0]

    return jax.tree.map(np.asarray, run(weights))


def _nets() -> list[Case]:
    M = Method
    fine = net(start=trained_net(), note="fine-tuning")

    def on(label: str, what: Any, *methods: Method, seeds: int = 1, subject: Subject = NET) -> list[Case]:
        return _many(label, subject, what, *methods, seeds=seeds)

    tanh, relu = net(), net(unit=1, note="rectifiers")
    return [
        *on(HEALTHY, tanh, M("sgd", 0.1), M("sgd", 0.3), M("sgd", 0.5, "linear"), M("momentum", 0.03),
            M("momentum", 0.05, "cosine"), M("nesterov", 0.03), M("adam", 1e-3), M("adam", 3e-3), M("adam", 1e-2),
            M("adam", 1e-2, "warmup"), M("rmsprop", 3e-3), M("rmsprop", 5e-3, "linear"), seeds=1),
        *on(HEALTHY, relu, M("sgd", 0.2), M("adam", 5e-3, "cosine"), M("momentum", 0.02), seeds=2),
        *on(HEALTHY, net(kept=0.1, note="weak signal"), M("sgd", 0.05, "linear"), M("adam", 1e-3), seeds=2),
        *on(HEALTHY, net(kept=0.3, note="some signal"), M("sgd", 0.1), M("adam", 2e-3), M("momentum", 0.02)),
        *on(HEALTHY, fine, M("sgd", 0.02), M("adam", 1e-4), M("momentum", 3e-3), M("adam", 3e-4, "linear"), seeds=2),
        *on(HIGH, tanh, M("sgd", 30.0), M("momentum", 5.0), M("adam", 0.3), M("adam", 1.0), M("rmsprop", 0.3)),
        *on(HIGH, relu, M("sgd", 10.0), M("adam", 0.5), M("rmsprop", 0.5)),
        *on(LOW, tanh, M("sgd", 1e-5), M("sgd", 1e-4), M("momentum", 1e-5), M("adam", 1e-6), M("adam", 1e-5),
            M("rmsprop", 1e-6), M("sgd", 0.2, "early"), M("adam", 3e-3, "early")),
        *on("saddle", net(size=0.02, note="from near 0"), M("sgd", 0.2), M("momentum", 0.02), seeds=2),
        *on("plateau", net(unit=1, bias=-50.0, note="dead rectifiers"), M("sgd", 0.1), M("adam", 1e-3)),
        *on("nonfinite", net(bad=7, note="a bad example"), M("sgd", 0.1), M("adam", 1e-3)),
        *on("batch_too_small", tanh, M("sgd", 0.05), M("momentum", 5e-3), M("adam", 2e-3), M("rmsprop", 1e-3),
            subject=PAIRS),
        *on("batch_too_small", relu, M("sgd", 0.05), subject=PAIRS),
        *on("batch_too_small", net(kept=0.5, note="half of the labels"), M("sgd", 0.05), subject=PAIRS),
        *on("batch_too_large", tanh, M("sgd", 0.2), M("momentum", 0.02), M("adam", 3e-3), seeds=2, subject=WHOLE),
        *on(VANISHES, net((16,) * 8, unit=2, note="8 sigmoid"), M("sgd", 0.1), M("momentum", 0.01), subject=DEEP),
        *on(VANISHES, net((16,) * 8, size=0.2, note="8 small tanh"), M("sgd", 0.1), M("momentum", 0.01), subject=DEEP),
        *on(EXPLODES, net((16,) * 8, size=5.0, unit=1, note="8 large"), M("sgd", 0.01), M("momentum", 0.001), seeds=2,
            subject=DEEP),
    ]  # fmt: skip


def _lines() -> list[Case]:
    M, top = Method, steepest()

    def on(label: str, what: Any, *methods: Method, subject: Subject = LINE, seeds: int = 1) -> list[Case]:
        return _many(label, subject, what, *methods, seeds=seeds)

    return [
        *on(HEALTHY, line(), M("sgd", 1.0 / top), M("momentum", 2.5 / top), M("momentum", 0.5 / top),
            M("adam", 0.03, "cosine"), M("rmsprop", 0.03, "linear")),
        *on(HEALTHY, line(), M("sgd", 0.05, "linear"), M("adam", 0.01), M("momentum", 0.01, "linear"),
            subject=LINE_BY_EIGHTS),
        *on(HIGH, line(), M("sgd", 2.2 / top), M("momentum", 4.2 / top), M("nesterov", 1.5 / top)),
        *on("oscillation", line(), M("sgd", 1.97 / top)),
        *on(LOW, line(), M("sgd", 1e-5), M("adam", 1e-6), M("sgd", 0.2, "early")),
        *on(ILL, line(0.01), M("sgd", 1.5 / steepest(0.01)), M("sgd", 1.0 / steepest(0.01))),
        *on("gradient_noise", line(), M("sgd", 0.15), M("momentum", 0.02), M("adam", 0.1), subject=LINE_BY_EIGHTS),
    ]  # fmt: skip


def _recurrents() -> list[Case]:
    M = Method

    def on(label: str, rho: float, *methods: Method, seeds: int = 1, out: float = 0.1) -> list[Case]:
        return _many(label, RECURRENT, recurrent(rho, out), *methods, seeds=seeds)

    return [
        *on(HEALTHY, 0.9, M("sgd", 0.02), M("adam", 2e-3), M("rmsprop", 1e-3, "linear"), seeds=2),
        *on(EXPLODES, 1.15, M("sgd", 0.02), seeds=2),
        *on(HEALTHY, 1.1, M("momentum", 0.01), seeds=2, out=0.025),
        *on(LOW, 0.9, M("adam", 1e-7), M("sgd", 1e-7)),
    ]  # fmt: skip


def _transformers() -> list[Case]:
    M = Method

    def on(label: str, *methods: Method, seeds: int = 1) -> list[Case]:
        return _many(label, TRANSFORMER, transformer(), *methods, seeds=seeds)

    return [
        *on(HEALTHY, M("sgd", 0.2), M("adam", 3e-3), M("adam", 1e-2, "warmup"), M("momentum", 0.03, "cosine"), seeds=2),
        *on(HIGH, M("sgd", 5.0), M("adam", 0.5), M("momentum", 1.0)),
        *on(LOW, M("sgd", 1e-4), M("adam", 1e-6), M("momentum", 1e-5)),
    ]  # fmt: skip


def _others() -> list[Case]:
    M, what = Method, letters()

    def on(label: str, *methods: Method, seeds: int = 1) -> list[Case]:
        return _many(label, LETTERS, what, *methods, seeds=seeds)

    return [
        *on(HEALTHY, M("sgd", 0.5), M("adam", 3e-3), M("momentum", 0.05, "cosine"), M("rmsprop", 1e-3)),
        *on(HEALTHY, M("sgd", 0.3), M("nesterov", 0.03), seeds=2),
        *on(HIGH, M("sgd", 50.0), M("nesterov", 5.0)),
        *on(LOW, M("sgd", 1e-4), M("adam", 1e-6), M("nesterov", 1e-5)),
        *_many("batch_too_small", STREAM, stream(2.0), M("sgd", 0.006), M("adam", 0.006), M("momentum", 6e-4),
               M("rmsprop", 0.004)),
    ]  # fmt: skip
