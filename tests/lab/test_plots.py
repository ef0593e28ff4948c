"""Every figure renders, labels its axes and states a conclusion."""

import dataclasses
import io
import re

import jax
import matplotlib as mpl
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2)
F = landscapes.quadratic(10.0)
DIVERGING = {
    "loss": 1.3 ** np.arange(60.0),
    "gradient_norm/global": 1.15 ** np.arange(60.0),
    "curvature_ratio/ratio": np.full(60, 1.07),
    "gradient_alignment/cosine": np.concatenate([[np.nan], np.full(59, -1.0)]),
}


@pytest.fixture(scope="module")
def paths():
    return {
        name: lab.run(F, tx, steps=20, key=KEY)
        for name, tx in {"sgd": gradtx.sgd(0.15), "momentum": gradtx.sgd(0.05, 0.8)}.items()
    }


@pytest.fixture(scope="module")
def swept(watch):
    grid = {"learning_rate": [0.001, 0.01, 0.1, 20.0], "momentum": [0.0, 0.5, 0.9]}
    return lab.sweep(F, lambda **h: optax.chain(watch, gradtx.sgd(**h)), grid, steps=60, keys=KEYS, eval_every=1)


@pytest.fixture(scope="module")
def compared():
    problems = [lab.problems.diabetes(), lab.problems.breast_cancer()]
    return lab.compare(problems, ["sgd", "adam"], steps=20, seeds=2, learning_rates=2, evaluations=5)


def axes_of(figure):
    nested = [axes for sub in figure.subfigs for axes in axes_of(sub)]
    return [axes for axes in (*figure.axes, *nested) if axes.get_visible()]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


PICTURES = {
    "trajectories": lambda paths, swept, compared: lab.plot_trajectories(F, paths),
    "one path, as an array": lambda paths, swept, compared: lab.plot_trajectories(F, paths["sgd"].iterates, arrows=0),
    "trajectories in one dimension": lambda paths, swept, compared: lab.plot_trajectories(
        landscapes.styblinski_tang(1), np.array([[1.0], [2.0]])
    ),
    "surface": lambda paths, swept, compared: lab.plot_surface(F, paths),
    "readings": lambda paths, swept, compared: lab.plot_readings(DIVERGING),
    "readings of a loss alone": lambda paths, swept, compared: lab.plot_readings({"loss": np.ones(5)}),
    "diagnosis": lambda paths, swept, compared: lab.plot_diagnosis(DIVERGING),
    "diagnosis of a loss alone": lambda paths, swept, compared: lab.plot_diagnosis({"loss": np.ones(5)}),
    "surface alone": lambda paths, swept, compared: lab.plot_surface(landscapes.saddle),
    "curves": lambda paths, swept, compared: lab.plot_curves(paths),
    "a band": lambda paths, swept, compared: lab.plot_curves(list(paths.values()), "train_loss"),
    "curves of a sweep": lambda paths, swept, compared: lab.plot_curves(swept, "metric"),
    "a reading": lambda paths, swept, compared: lab.plot_curves(swept, "watch/norm"),
    "a part of a reading": lambda paths, swept, compared: lab.plot_curves(swept, "watch/norms[0]"),
    "convergence": lambda paths, swept, compared: lab.plot_convergence(paths),
    "convergence of a sweep": lambda paths, swept, compared: lab.plot_convergence({"a": swept}, -1.0, what="loss"),
    "range test": lambda paths, swept, compared: lab.plot_range_test(gradtx.lr_range_test(F, F.start, steps=30)),
    "range test that ended at once": lambda paths, swept, compared: lab.plot_range_test(
        gradtx.RangeTest(np.array([1.0, 2.0]), np.full(2, np.nan), np.nan, 1.0, np.nan)
    ),
    "heat map": lambda paths, swept, compared: lab.plot_sweep(swept),
    "heat map of the metric": lambda paths, swept, compared: lab.plot_sweep(swept, "momentum", by="metric"),
    "sensitivity": lambda paths, swept, compared: lab.plot_sensitivity({"a": swept, "b": swept}),
    "sensitivity to the momentum": lambda paths, swept, compared: lab.plot_sensitivity(swept, "momentum", by="metric"),
    "batch sizes": lambda paths, swept, compared: lab.plot_batch_sizes({8: swept, 32: swept}, 1.0),
    "batch sizes that do not reach the target": lambda paths, swept, compared: lab.plot_batch_sizes({8: swept}, -1.0),
    "comparison": lambda paths, swept, compared: lab.plot_comparison(compared),
    "performance profile": lambda paths, swept, compared: lab.plot_performance_profile(compared),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_every_figure_renders_with_labelled_axes_and_a_conclusion(name, paths, swept, compared):
    figure = PICTURES[name](paths, swept, compared)
    assert len(png(figure)) > 8_000
    assert len(figure.get_suptitle()) > 15
    assert figure.get_figwidth() <= 13
    for axes in axes_of(figure):
        if axes.get_label() != "<colorbar>":
            assert axes.get_xlabel(), name
        assert axes.get_ylabel() or (len(axes.get_yticklabels()) and axes.get_yticklabels()[0].get_text()), name


@pytest.mark.parametrize("name", landscapes.LANDSCAPES)
@pytest.mark.sampled(4)
def test_every_landscape_can_be_drawn_from_its_start(name):
    f = landscapes.LANDSCAPES[name]()
    figure = lab.plot_trajectories(f, np.stack([f.start, f.start]))
    assert f.section in figure.axes[0].get_title(loc="left")
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {"start", "downhill (-gradient)"} <= labels


def test_readings_have_a_panel_for_each_instrument_and_none_for_a_batch_size_alone():
    run = {"loss": np.ones(5), "batch_sizes": np.full(5, 64), "gradient_norm/global": np.ones(5)}
    for figure, titles in (
        (lab.plot_readings(run), {"Loss", "Gradient norm"}),
        (lab.plot_diagnosis(run), {"Gradient norm"}),
    ):
        shown = {axes.get_title(loc="left") for axes in axes_of(figure) if axes.get_visible()}
        assert titles <= shown
        assert "Batch against noise scale" not in shown


def test_a_panel_shows_growth_by_twenty_decades_and_leaves_out_a_single_tiny_value():
    k = np.arange(100)
    grows, touches = 10.0 ** (k / 5), np.where(k == 50, 1e-30, 1.0 + k)
    for norm, lowest in ((grows, 1e2), (touches, 1.0)):
        figure = lab.plot_readings({"loss": np.ones(100), "gradient_norm/global": norm})
        low, high = axes_of(figure)[1].get_ylim()
        assert 1e-8 < low < lowest
        assert high >= norm.max()


def test_a_panel_includes_the_threshold_even_if_the_curve_is_far_below_it():
    figure = lab.plot_readings({"loss": np.ones(50), "curvature_ratio/ratio": np.linspace(0.05, 0.15, 50)})
    low, high = axes_of(figure)[1].get_ylim()
    assert low < 0.05 < 1 < high


def test_a_reading_of_both_signs_with_large_values_has_a_symlog_axis():
    ratio = np.where(np.arange(50) == 20, -1e9, 0.5)
    figure = lab.plot_readings({"loss": np.ones(50), "curvature_ratio/ratio": ratio * (-1.0) ** np.arange(50)})
    assert axes_of(figure)[1].get_yscale() == "symlog"


def test_a_dict_of_curves_may_name_the_problem():
    run = {"problem": "mine", "loss": np.ones(5)}
    assert lab.plot_diagnosis(run).get_suptitle().startswith("mine: ")
    assert lab.plot_readings(run).get_suptitle().startswith("mine: ")


def test_conclusions_state_the_numbers_of_the_runs(paths, swept):
    ends = {name: float(F(history.params)) for name, history in paths.items()}
    first, second = sorted(ends, key=lambda name: ends[name])
    title = lab.plot_trajectories(F, paths).get_suptitle().replace("\n", " ")
    assert title.index(f"{first}: {ends[first]:.3g}") < title.index(f"{second}: {ends[second]:.3g}")
    best = swept.best()
    title = lab.plot_sweep(swept).get_suptitle().replace("\n", " ")
    assert f"learning rate {best['learning_rate']:.3g}, momentum {best['momentum']:.3g}" in title


def test_the_heat_map_frames_the_best_cell_and_crosses_diverged_cells(swept):
    axes = lab.plot_sweep(swept).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 12
    assert "×" in texts
    best = swept.best()
    corner = axes.patches[0].get_xy()
    assert swept.axes["learning_rate"][int(corner[0] + 0.5)] == pytest.approx(best["learning_rate"])
    assert swept.axes["momentum"][int(corner[1] + 0.5)] == pytest.approx(best["momentum"])


def test_the_sensitivity_with_a_minimum_shows_the_excess_over_it(swept):
    heights = [lab.plot_sensitivity(swept, minimum=minimum).axes[0] for minimum in (0.0, -1.0)]
    whole, above = (axes.lines[0].get_ydata() for axes in heights)
    np.testing.assert_allclose(above, whole + 1)
    assert [axes.get_ylabel() for axes in heights] == ["final loss", "final excess loss"]


def test_a_figure_has_a_png_for_notebooks_and_does_not_change_the_users_style(paths):
    with mpl.rc_context({"font.size": 17.0}):
        figure = lab.plot_trajectories(F, paths)
        assert mpl.rcParams["font.size"] == 17.0
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_png_for_notebooks_has_at_most_half_the_bytes_and_keeps_the_colours_of_lines(paths):
    figure = lab.plot_trajectories(F, paths)
    shown = figure._repr_png_()
    assert len(shown) < 0.5 * len(png(figure))
    whole, few = (mpl.image.imread(io.BytesIO(picture))[..., :3] for picture in (png(figure), shown))
    for line in figure.axes[0].lines[: len(paths)]:
        is_line = np.all(np.abs(whole - mpl.colors.to_rgb(line.get_color())) < 1e-2, axis=-1)
        assert is_line.sum() > 50
        np.testing.assert_allclose(few[is_line], whole[is_line], atol=0.02)
    figure.patch.set_alpha(0.0)
    assert figure._repr_png_() == png(figure)  # transparent figures are not compressed


def test_an_animation_plays_in_a_notebook_without_a_codec(paths, tmp_path):
    animation = lab.animate_trajectories(F, paths, frames=3)
    html = animation._repr_html_()
    assert len(re.findall(r"data:image/png;base64", html)) == 4  # 3 frames, and the last one without scripts
    assert "<script" in html
    animation.save(tmp_path / "a.html")
    assert "data:image/png" in (tmp_path / "a.html").read_text()
    animation.save(tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes().startswith(b"GIF8")
    with pytest.raises(ValueError, match=r"path must end in .html or .gif, got 'a.mp4'"):
        animation.save(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, s: lab.plot_curves(p, "speed"), "what must be one of loss, train_loss, .* got 'speed'"),
        (lambda p, s: lab.plot_curves(s, "watch/norms[7]"), r"watch/norms\[1\]|watch/norms\[0\]"),
        (lambda p, s: lab.plot_sweep(s, x="decay"), "x and y must be two of the sweep's axes"),
        (lambda p, s: lab.plot_sensitivity(s, "decay"), r"one of \['learning_rate', 'momentum'\], got 'decay'"),
        (lambda p, s: lab.plot_batch_sizes({}, 1.0), "plot_batch_sizes: sweeps must hold at least one Sweep"),
        (lambda p, s: lab.plot_sensitivity({}), "plot_sensitivity: sweeps must hold at least one Sweep, got none"),
        (lambda p, s: lab.plot_sensitivity(s, by="speed"), "by must be one of loss, .* got 'speed'"),
        (
            lambda p, s: lab.plot_convergence(s, what="speed"),
            "plot_convergence: what must be one of loss, .* got 'speed'",
        ),
        (lambda p, s: lab.plot_convergence({}), "plot_convergence: runs must hold at least one History or Sweep"),
        (lambda p, s: lab.plot_curves([]), "plot_curves: runs must hold at least one History or Sweep"),
        (lambda p, s: lab.plot_curves(p, smooth=0), "plot_curves: smooth must be at least 1, got 0"),
        (lambda p, s: lab.plot_readings({}), "history must hold loss"),
        (lambda p, s: lab.plot_trajectories(F, p, arrows=-1), "plot_trajectories: arrows must be at least 0, got -1"),
        (lambda p, s: lab.plot_batch_sizes({8: s}, 1.0, by="loss"), "by must be an evaluation"),
        (lambda p, s: lab.plot_trajectories(F, {}), "plot_trajectories: paths must hold at least one path, got none"),
        (lambda p, s: lab.plot_surface(F, {}), "plot_surface: paths must hold at least one path, got none"),
        (
            lambda p, s: lab.plot_trajectories(F, np.zeros((5, 3))),
            r"iterates \[n \+ 1, 2\] of quadratic, got shape \(5, 3\)",
        ),
        (lambda p, s: lab.plot_surface(landscapes.styblinski_tang(1)), "must have at least 2 dimensions"),
        (
            lambda p, s: lab.animate_trajectories(F, p, frames=1),
            "animate_trajectories: frames must be at least 2, got 1",
        ),
        (lambda p, s: lab.animate_trajectories(landscapes.styblinski_tang(1), p), "at least 2 dimensions, .* has 1"),
    ],
)
def test_arguments_that_cannot_be_drawn_are_refused_by_name(paths, swept, call, message):
    with pytest.raises(ValueError, match=message):
        call(paths, swept)


@pytest.mark.parametrize(
    "plot",
    [
        lab.plot_curves,
        lab.plot_convergence,
        lab.plot_sweep,
        lab.plot_sensitivity,
        lab.plot_readings,
        lab.plot_diagnosis,
        lambda x: lab.plot_diagnosis(DIVERGING, x),
        lab.plot_comparison,
        lab.plot_performance_profile,
        lab.comparison_table,
        lab.comparison_to_dict,
        lambda x: lab.save_comparison(x, "never.json"),
        lab.plot_range_test,
        lab.plot_surface,
        lambda x: lab.plot_trajectories(x, np.zeros((3, 2))),
        lambda x: lab.animate_trajectories(x, np.zeros((3, 2))),
        lambda x: lab.plot_batch_sizes(x, 0.1),
    ],
)
def test_plots_refuse_arguments_of_the_wrong_type(plot):
    with pytest.raises(TypeError, match=r"must be .*, got (0.5|float)"):
        plot(0.5)


def cut_short(steps=0, loss=np.nan):
    """Returns a run whose loss is never finite, or that was interrupted before its first step."""
    return lab.History(
        loss=np.full(steps, loss), readings={}, params=np.zeros(2), opt_state=(), iterates=np.zeros((steps + 1, 2)),
        batch_sizes=np.ones(steps, int), eval_steps=np.array([0]), train_loss=np.array([1.0]),
        validation_loss=np.array([1.0]), metric=np.array([1.0]), problem="mine", metric_name="value",
    )  # fmt: skip


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize(
    "plot",
    [
        lab.plot_curves,
        lambda run: lab.plot_curves({"a": run, "b": [run, run]}, smooth=3),
        lambda run: lab.plot_curves(run, "metric"),
        lab.plot_convergence,
        lambda run: lab.plot_convergence(run, what="loss"),
        lab.plot_readings,
        lab.plot_diagnosis,
        lambda run: lab.plot_trajectories(F, run),
        lambda run: lab.plot_surface(F, run),
    ],
)
@pytest.mark.sampled(10)
def test_a_run_without_a_finite_loss_or_without_a_step_can_be_drawn(plot, steps):
    figure = plot(cut_short(steps))
    assert len(png(figure)) > 4_000
    assert len(figure.get_suptitle()) > 15
    assert "nan" not in figure.get_suptitle().lower().replace("nan or inf", "")


def test_figures_of_a_run_without_steps_say_that_no_step_was_recorded():
    for plot in (lab.plot_readings, lab.plot_diagnosis):
        assert plot(cut_short()).get_suptitle() == "mine: No step was recorded, so there is nothing to show."
        assert "No step was recorded" in plot({"loss": []}).get_suptitle()
        with pytest.raises(ValueError, match="must hold loss"):
            plot({"gradient_norm/global": np.ones(3)})
    assert "no finite value" in [t.get_text() for axes in axes_of(lab.plot_readings(cut_short(5))) for t in axes.texts]


ODD_NAMES = ["_private", "costs $5 or $6", r"\frac{", "a_b^c", "__"]


def test_names_with_special_characters_are_shown_unchanged(swept, paths, compared):
    run = paths["sgd"]
    runs = dict.fromkeys(ODD_NAMES, run)
    named = {name: dataclasses.replace(swept, problem=name) for name in ODD_NAMES}
    for figure in (
        lab.plot_curves(runs),
        lab.plot_convergence(runs),
        lab.plot_trajectories(F, runs),
        lab.plot_surface(F, runs),
        lab.plot_sensitivity(named),
    ):
        png(figure)
        legends = [*figure.legends, *(axes.get_legend() for axes in axes_of(figure) if axes.get_legend())]
        shown = {text.get_text().split(": falls")[0] for legend in legends for text in legend.get_texts()}
        assert set(ODD_NAMES) <= shown
    every = " ".join(ODD_NAMES)
    readings = {name: run.loss for odd_name in ODD_NAMES for name in (odd_name, f"{odd_name}/b")}
    watched = dataclasses.replace(run, problem=every, readings=readings)
    assert len(png(lab.plot_curves(watched, ODD_NAMES[2]))) > 4_000
    picture = lab.plot_readings(watched)
    png(picture)
    assert every in picture.get_suptitle()
    png(lab.plot_diagnosis(watched))
    png(lab.plot_sweep(dataclasses.replace(swept, problem=every)))
    of_methods = [dataclasses.replace(r, method=n) for r, n in zip(compared.results, ODD_NAMES, strict=False)]
    odd = dataclasses.replace(
        compared, results=tuple(of_methods[:2]), problems={"diabetes": compared.problems["diabetes"]}
    )
    shown = {t.get_text() for axes in axes_of(lab.plot_comparison(odd)) if axes.get_legend()
             for t in axes.get_legend().get_texts()}  # fmt: skip
    assert set(ODD_NAMES[:2]) <= shown


def test_text_and_gaps_among_the_readings_are_accepted(paths):
    log = {
        "loss": np.ones(5),
        "note": ["a"] * 5,
        "phase": "warm-up",
        "gradient_norm/global": [1.0, None, 2.0, None, 3.0],
    }
    log |= {"readings": None}
    titles = {axes.get_title(loc="left") for axes in axes_of(lab.plot_readings({"note": "b"} | log | DIVERGING))}
    assert "Gradient norm" in titles
    run = dataclasses.replace(paths["sgd"], readings={"phase": np.array(["a"] * 20), "gaps": [1.0, None] * 10})
    assert "ends at 1" in lab.plot_curves(run, "gaps", smooth=1).get_suptitle()
    with pytest.raises(ValueError, match="plot_curves: phase must be a curve of numbers"):
        lab.plot_curves(run, "phase")


def test_the_band_shows_a_spike_that_the_median_hides(paths):
    loss = np.ones(500)
    loss[137] = 1e4
    axes = lab.plot_curves(dataclasses.replace(paths["sgd"], loss=loss)).axes[0]
    (line,) = axes.lines
    assert line.get_ydata().max() == 1  # the median
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices
    at = heights[heights[:, 1].argmax()]
    assert at[1] == 1e4
    assert abs(at[0] - 137) <= 10
    several = lab.plot_curves([dataclasses.replace(paths["sgd"], loss=x) for x in (loss, np.full(500, 2.0))])
    assert several.axes[0].collections[0].get_paths()[0].vertices[:, 1].max() == 1e4


def test_a_smoothing_window_may_be_longer_than_the_run():
    run = lab.run(F, gradtx.sgd(0.01), steps=5, key=jax.random.key(0))
    assert "nan" not in lab.plot_curves(run, smooth=50).get_suptitle()


def test_the_diagnosis_page_shows_each_finding_and_the_panels_for_it():
    page = lab.plot_diagnosis(DIVERGING)
    assert "learning rate too high" in page.get_suptitle()
    titles = [axes.get_title(loc="left") for axes in axes_of(page)]
    assert {"Gradient norm", "Step against curvature", "Cosine of gradients"} <= set(titles)
    assert any("THE LEARNING RATE IS TOO HIGH" in text.get_text() for text in page.subfigs[0].texts)
    assert any("loss rises" in text.get_text() for axes in axes_of(page) for text in axes.texts)


def test_the_title_of_a_sensitivity_names_the_best_point_and_whether_it_is_at_the_edge(swept):
    title = lab.plot_sensitivity({"one, two": swept}).get_suptitle().replace("\n", " ")
    best = swept.best()["learning_rate"]
    at_edge = best in (swept.axes["learning_rate"].min(), swept.axes["learning_rate"].max())
    assert f" at {best:.3g}" in title
    assert ("the edge of the grid" in title) == at_edge


def test_a_heat_map_of_two_axes_names_the_axes_over_which_it_takes_the_best(swept):
    grid = {"a": [0.01, 0.02], "b": [0.0, 0.1], "c": [0.0, 0.2]}
    sweep = lab.sweep(F, lambda a, b, c: gradtx.sgd(a + 0 * c, b), grid, steps=2, keys=KEYS[:1])
    assert "the best over c" in lab.plot_sweep(sweep, "a", "b").axes[0].get_title(loc="left")
    assert not lab.plot_sweep(swept).axes[0].get_title(loc="left")


def test_titles_write_the_name_of_a_reading_in_words():
    tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.1))
    run = lab.run(F, tx, steps=5, key=jax.random.key(0))
    picture = lab.plot_curves({"a, b": run, "c": run}, "gradient_norm/global")
    title = picture.get_suptitle().replace("\n", " ")
    assert "gradient norm (global)" in title
    assert "a, b: " in title
    assert "; c: " in title


def test_arrows_are_not_drawn_at_the_minimum():
    path = np.array([[1.0, 1.0], [0.5, 0.5], [0.0, 0.0], [0.0, 0.0]])
    arrows = [c for c in lab.plot_trajectories(F, path, arrows=4).axes[0].collections if hasattr(c, "U")]
    offsets = np.concatenate([a.get_offsets() for a in arrows])
    assert len(offsets)
    assert np.abs(offsets).max(axis=1).min() > 0.1


def test_the_buttons_of_an_animation_do_not_need_a_network(paths):
    html = lab.animate_trajectories(F, paths, frames=2)._repr_html_()
    assert "https:" not in html.split("<script")[0]
    assert "font-awesome" not in html
    assert 'class="fa' not in html
    assert all(symbol in html for symbol in "⏮◀⏸▶⏭")
