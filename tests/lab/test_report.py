"""The page of a run: everything that was found stands in it, nothing in it leaves the page, and a click works."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import lab
from gradtx.__main__ import main
from gradtx._core.installing import install
from gradtx.lab.conclusions import comparison_in_words
from gradtx.lab.page.panels import symlog, thinned

K = np.arange(60)
TOO_HIGH = {
    "loss": 2.0 * 1.1**K,
    "curvature_ratio/ratio": np.full(60, 1.025),
    "gradient_norm/global": 1.05**K,
    "accuracy": np.linspace(0.5, 0.1, 60),
}
FALLS = {"loss": 2.0 * 0.9**K, "gradient_norm/global": 0.95**K, "learning_rate": np.full(60, 0.1)}


class Page(HTMLParser):
    """What a browser makes of a page: its tags with their attributes, its text, and the data of its curves."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.scripts, self._inside = [], "", [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.data = json.loads(self.scripts[1], parse_constant=pytest.fail)  # NaN and Infinity are no JSON

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")
        self._inside = [tag] if tag in ("script", "style") else []

    def handle_endtag(self, tag):
        self._inside = []

    def handle_data(self, data):
        if self._inside == ["script"]:
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data

    def having(self, **attributes):
        return [found for _, found in self.tags if attributes.items() <= found.items()]

    def curves(self, label):
        return [curve for panel in self.data["panels"] for curve in panel["curves"] if curve["label"] == label]


@pytest.fixture
def page_of(tmp_path):
    return lambda runs: Page(lab.report(runs, tmp_path / "page.html"))


def test_the_page_holds_every_finding_every_exclusion_and_every_challenge_not_judged(page_of):
    diagnosis, page = gradtx.diagnose(TOO_HIGH), page_of(TOO_HIGH)
    assert "learning_rate_too_high" in diagnosis.challenges
    assert diagnosis.ruled_out
    assert diagnosis.unjudged
    for found in diagnosis.findings:
        for text in (found.title, found.evidence, found.section, found.source, found.advice, found.remedy):
            assert text in page.text
        first, last = found.steps
        assert page.having(**{"class": "mark", "data-first": str(first), "data-last": str(last)})
    for why in [*diagnosis.ruled_out.values(), *diagnosis.unjudged.values()]:
        assert why in page.text
    assert diagnosis.headline in page.text


def test_the_consequences_of_a_finding_are_listed_under_the_finding(page_of):
    seen = {**TOO_HIGH, "gradient_alignment/cosine": np.full(60, -0.95)}
    (cause,) = (f for f in gradtx.diagnose(seen).findings if f.challenge == "learning_rate_too_high")
    assert cause.consequences
    text = page_of(seen).text
    for effect in cause.consequences.values():
        assert text.index(cause.title) < text.index(effect) < text.index(cause.evidence)


def test_the_curves_of_the_page_are_those_of_the_run(page_of):
    page = page_of(TOO_HIGH)
    for label, name in (("minibatch loss", "loss"), ("‖g‖", "gradient_norm/global"), ("accuracy", "accuracy")):
        (curve,) = page.curves(label)
        assert curve["x"] == list(range(60))
        np.testing.assert_allclose(curve["y"], TOO_HIGH[name], rtol=1e-5)
    assert page.data["steps"] == [0, 59]


def test_a_recorder_is_a_run_with_its_own_step_numbers(page_of):
    log = lab.Recorder(every=10, name="mine")
    for k in range(5):
        log(loss=jnp.float32(5 - k), norms=jnp.arange(6.0))
    page = page_of(log)
    assert "mine" in page.text
    (curve,) = page.curves("minibatch loss")
    assert (curve["x"], curve["y"]) == ([0, 10, 20, 30, 40], [5, 4, 3, 2, 1])
    assert page.data["gap"] == 10


def test_a_reading_of_many_numbers_shows_its_lowest_median_and_highest(page_of):
    leaves = np.array([5.0, 1.0, np.nan, 3.0, 9.0, 7.0]) * np.ones((60, 1))
    page = page_of({**FALLS, "gradient_norm/leaves": leaves, "gradient_norm/two": leaves[:, :2]})
    shown = {label: page.curves(label)[0]["y"][0] for label in ("lowest of 6", "median of 6", "highest of 6")}
    assert shown == {"lowest of 6": 1, "median of 6": 5, "highest of 6": 9}
    assert page.curves("gradient_norm/two[1]")[0]["y"] == [1] * 60


def test_the_vertical_axes_have_the_scale_of_the_static_picture(page_of):
    wild = np.where(K % 2, -1.0, 1.0) * 10.0 ** (K / 20)
    seen = {**TOO_HIGH, "curvature_ratio/ratio": wild, "gradient_alignment/cosine": np.cos(K)}
    axes = {a.get_title(loc="left"): a for a in lab.plot_readings(seen).axes if a.get_visible()}
    page = page_of(seen)
    headings = re.findall(r"<figure[^>]*><h3>(.*?)</h3>", page.source)
    scales = dict(zip(map(html.unescape, headings), page.data["panels"], strict=True))
    assert {axes[title].get_yscale() for title in axes} == {"log", "symlog", "linear"}
    assert {title: scales[title]["scale"] for title in axes} == {title: a.get_yscale() for title, a in axes.items()}
    curve = scales["Step against curvature"]["curves"][0]
    np.testing.assert_allclose(curve["raw"], wild, rtol=1e-5)
    np.testing.assert_allclose(curve["y"], symlog(wild), rtol=1e-5)


def test_a_value_that_is_not_finite_is_a_gap_and_the_caption_mentions_it(page_of):
    loss = 1.0 + K
    loss[[7, 8, 20]] = np.nan, np.inf, -np.inf
    page = page_of({"loss": loss, "gradient_norm/global": np.full(60, np.nan), "accuracy": np.full(60, np.inf)})
    (curve,) = page.curves("minibatch loss")
    gaps = [x for x, y in zip(curve["x"], curve["y"], strict=True) if y is None]
    assert gaps == [7, 20]
    assert len(curve["x"]) == 59  # a stretch that is not finite needs one gap
    assert "NaN or inf values: 3, the first at step 7" in page.text
    assert not page.curves("‖g‖")


def test_a_loss_that_is_logged_once_per_epoch_is_a_line_without_gaps(page_of):
    loss = np.full(60, np.nan)
    loss[9::10] = np.arange(6) + 1.0
    (curve,) = page_of({"loss": loss, "gradient_norm/global": np.ones(60)}).curves("minibatch loss")
    assert (curve["x"], curve["dots"]) == ([9, 19, 29, 39, 49, 59], True)


def test_a_long_run_is_thinned_and_keeps_its_extremes(page_of):
    steps = 100_000
    noise = np.random.default_rng(0).normal(size=(20, steps))
    noise[0, 54_321], noise[0, 12_345] = 99.0, -99.0
    page = page_of({"loss": noise[0], **{f"curve {i}": row for i, row in enumerate(noise[1:])}})
    assert len(page.source) < 10e6
    (curve,) = page.curves("minibatch loss")
    assert 1900 < len(curve["x"]) < 2100
    assert (max(curve["y"]), min(curve["y"])) == (99, -99)
    assert (curve["x"][0], curve["x"][-1]) == (0, steps - 1)
    at = dict(zip(curve["x"], curve["y"], strict=True))
    assert (at[54_321], at[12_345]) == (99, -99)


def test_thinning_keeps_the_ends_the_extremes_and_one_gap_of_each_part():
    values = np.sin(np.arange(1000.0))
    values[500:520] = np.nan
    steps, kept = thinned(3 * np.arange(1000), values, 50)
    assert len(kept) <= 50 + 25 + 2
    np.testing.assert_array_equal(kept[np.isfinite(kept)], values[steps // 3][np.isfinite(kept)])
    assert (steps[0], steps[-1], np.isnan(kept).sum()) == (0, 2997, 1)
    assert (np.nanmax(kept), np.nanmin(kept)) == (np.nanmax(values), np.nanmin(values))


ATTACK = "</script><script>window.wrong=1</script><img src=x onerror=wrong()> $$data$$ %{y} \ud800 &amp; 'q' \"q\""


def test_names_with_special_characters_are_shown_unchanged(page_of, monkeypatch):
    evil = gradtx.Finding("saddle", ATTACK, {ATTACK: 1.0}, (2, 5), "low", ATTACK, ATTACK, ATTACK, ATTACK, ATTACK)
    found = gradtx.Diagnosis((evil,), {ATTACK: ATTACK}, {ATTACK: ATTACK}, 60)
    plain = page_of({"a": TOO_HIGH, "b": FALLS})
    monkeypatch.setattr(gradtx, "diagnose", lambda run: found)
    page = page_of({ATTACK: {**TOO_HIGH, ATTACK: K}, "b": FALLS})
    seen = ATTACK.replace("\ud800", "?")  # half of a pair, which no file can hold
    assert page.text.count(seen) > 8
    assert page.data["runs"][0]["name"] == seen
    tags = {tag for tag, _ in plain.tags}
    assert {tag for tag, _ in page.tags} == tags
    assert "img" not in tags
    assert len(page.scripts) == len(plain.scripts) == 4


def test_the_page_loads_nothing_from_elsewhere(page_of):
    page = page_of({"a": TOO_HIGH, "b": FALLS})
    policy = page.having(**{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data", "poster"} & attributes.keys()
    library = page.scripts[2]
    assert "plotly.js v" in library
    own = page.source.replace(library, "")
    for word in ("http://", "https://", "fetch(", "XMLHttpRequest", "import(", "@import", "url(", "WebSocket"):
        assert word not in own, word


def test_the_same_run_gives_the_same_bytes(tmp_path):
    first, second = (lab.report({"a": TOO_HIGH, "b": FALLS}, tmp_path / name) for name in ("1.html", "2.html"))
    assert first.read_bytes() == second.read_bytes()


def test_the_path_may_be_a_str_or_a_path_and_is_returned(tmp_path, monkeypatch):
    assert lab.report(FALLS, str(tmp_path / "a.html")) == tmp_path / "a.html"
    monkeypatch.chdir(tmp_path)
    lab.report(FALLS)
    assert (tmp_path / "run.html").read_bytes() == (tmp_path / "a.html").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "run.html"}


def test_the_page_of_a_run_without_a_step_says_so(page_of):
    assert "No step was recorded" in page_of({"loss": []}).text


def test_a_run_without_a_problem_has_no_finding(page_of):
    page = page_of({"loss": [3.0, 2.0, 1.0]})
    assert "3 steps: these readings show no problem." in page.text
    assert not page.having(**{"class": "mark"})


def test_the_curves_of_several_runs_share_a_panel_and_each_run_has_its_findings(page_of):
    page = page_of({"hot": TOO_HIGH, "cool": FALLS})
    assert [run["name"] for run in page.data["runs"]] == ["hot", "cool"]
    assert [curve["run"] for curve in page.data["panels"][0]["curves"]] == [0, 1]
    assert [button["aria-pressed"] for button in page.having(**{"class": "run"})] == ["true", "false"]
    for run in (TOO_HIGH, FALLS):
        assert gradtx.diagnose(run).headline in page.text


ROWS = [{"loss": 3.0 - k, "step": 2 * k} for k in range(3)]


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        (ROWS, ["run"]),
        ([TOO_HIGH, FALLS], ["run 1", "run 2"]),
        ({"a": ROWS, "b": FALLS}, ["a", "b"]),
        ({"loss": FALLS, "b": ROWS}, ["loss", "b"]),
        ({"a": {"x": FALLS, "y": FALLS}, "b": FALLS}, ["a, x", "a, y", "b"]),
        ({"train_loss": [3.0, 2.0], "grad_norm": [1.0, 2.0]}, ["run"]),
        ({"a": {"train_loss": [3.0, 2.0]}, "b": {"train_loss": [3.0, 2.0]}}, ["a", "b"]),
        ({"loss": [3.0, 2.0], "readings": {"gradient_norm/global": [1.0, 2.0]}}, ["run"]),
        ({"loss": [3.0, 2.0], "problem": "mine"}, ["mine"]),
    ],
)
def test_one_run_is_distinguished_from_several(runs, names, page_of):
    assert [run["name"] for run in page_of(runs).data["runs"]] == names


def test_a_dataframe_is_a_run(page_of):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"loss": [3.0, 2.0, 1.0]})
    assert [run["name"] for run in page_of({"a": frame, "b": frame}).data["runs"]] == ["a", "b"]
    assert page_of(frame).curves("minibatch loss")[0]["y"] == [3, 2, 1]


def small_sweep(**changes):
    rates = np.array([0.1, 1.0, 10.0])
    loss = np.stack([np.stack([rate * 0.9**K, 2 * rate * 0.9**K]) for rate in (2.0, 1.0, 3.0)])
    evaluated = loss[..., ::20]
    fields = {
        "axes": {"learning_rate": rates}, "is_random": False, "loss": loss, "readings": {"gradient_norm/global": loss},
        "eval_steps": np.array([0, 20, 40]), "train_loss": evaluated, "validation_loss": evaluated + 1,
        "metric": evaluated + 2, "diverged_at": np.full((3, 2), -1), "finished": np.ones((3, 2), bool), "problem": "p",
        "metric_name": "error", "higher_is_better": False, "method": "sgd",
    }  # fmt: skip
    return lab.Sweep(**{**fields, **changes})


def test_a_sweep_shows_every_key_at_its_best_point(page_of):
    page = page_of(small_sweep())
    assert len(page.having(**{"class": "run"})) == 2
    assert [run["name"] for run in page.data["runs"]] == [f"sgd, learning rate 1, key {i}" for i in (0, 1)]
    np.testing.assert_allclose([c["y"][0] for c in page.curves("minibatch loss")], [1.0, 2.0])
    np.testing.assert_allclose(page.curves("validation error")[1]["y"], 2 * 0.9 ** np.array([0, 20, 40]) + 2, rtol=1e-5)
    assert page.curves("validation error")[1]["x"] == [0, 20, 40]
    assert "best at learning rate 1 " in page.text


def small_comparison():
    """Two methods on two problems."""
    sweep, none = small_sweep(), np.full(2, -1)
    results = [
        lab.MethodResult(problem, method, 64, sweep, best, none, none.astype(float), 1.0)
        for problem in "ab"
        for best, method in ((1, "sgd"), (2, "adam"))
    ]
    numbers = {"seeds": 2, "steps": 60, "learning_rates": 3, "evaluate_every": 20, "patience": 20}
    problems: Any = {name: SimpleNamespace(target=3.0, description=name) for name in "ab"}
    return lab.Comparison(numbers | {"problems": {"a": "a", "b": "b"}}, problems, tuple(results))


def test_the_value_of_a_landscape_is_shown_once(page_of):
    values = small_sweep().train_loss
    page = page_of(small_sweep(validation_loss=values, metric=values, metric_name="value"))
    assert len(page.curves("value")) == 2
    assert not page.curves("training loss")


def test_a_sweep_without_a_finished_member_is_refused(page_of):
    with pytest.raises(ValueError, match="report: the best point of the sweep was not finished"):
        page_of(small_sweep(finished=np.zeros((3, 2), bool)))


@pytest.mark.parametrize(
    ("runs", "kind", "message"),
    [
        (3, TypeError, r"report: history must be a lab\.History or a dict of arrays .* got int"),
        ({}, ValueError, "report: history must hold loss"),
        ({"a": FALLS, "b": {"gradient_norm/global": [1.0]}}, ValueError, "report: run 'b': history must hold loss"),
        ({"loss": ["x"]}, TypeError, "report: loss must be an array of numbers"),
        ({"a": lab.Recorder()}, ValueError, "report: run 'a': history must hold loss"),
    ],
)
def test_an_object_that_is_not_a_run_is_refused_by_name(runs, kind, message, page_of, tmp_path):
    with pytest.raises(kind, match=message):
        page_of(runs)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_to_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"report: path must be in a folder that exists, got .*new.*first\."):
        lab.report(FALLS, tmp_path / "new" / "run.html")
    with pytest.raises(IsADirectoryError, match=r"report: path must name a file, got the folder"):
        lab.report(FALLS, tmp_path)
    with pytest.raises(TypeError, match=r"report: path must be a str or a Path, such as 'run\.html', got 3"):
        lab.report(FALLS, 3)  # pyright: ignore[reportArgumentType]


def test_the_error_for_a_missing_plotly_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape(install("report"))):
        lab.report(FALLS, tmp_path / "run.html")


def test_a_failed_write_leaves_the_older_page(tmp_path, monkeypatch):
    path = lab.report(FALLS, tmp_path / "run.html")
    before = path.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        lab.report(TOO_HIGH, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.html"]


def test_diagnose_writes_the_page_and_keeps_an_older_one(tmp_path, capsys, monkeypatch):
    none = np.zeros(0)
    readings = {name: values for name, values in TOO_HIGH.items() if "/" in name}
    history = lab.History(TOO_HIGH["loss"], readings, {}, (), None, np.full(60, 1), none, none, none, none, problem="p")
    monkeypatch.setattr("gradtx.lab.cli.diagnose.run_lab", lambda *args, **settings: history)
    page = tmp_path / "run.html"
    page.write_text("older")
    assert main(["diagnose", "quadratic", "--out", str(tmp_path / "out"), "--report", str(page)]) == 0
    assert f"kept the older {page} as {tmp_path / 'run-1.html'}" in capsys.readouterr().out
    assert (tmp_path / "run-1.html").read_text() == "older"
    diagnosis = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert diagnosis["findings"]
    for found in diagnosis["findings"]:
        assert found["evidence"] in Page(page).text


def test_compare_writes_the_page_of_all_methods(tmp_path, monkeypatch):
    found = small_comparison()
    monkeypatch.setattr("gradtx.lab.cli.compare.comparisons", lambda *args, **settings: iter([found] * 4))
    arguments = ["compare", "diabetes", "breast_cancer", "--methods", "sgd,adam", "--out", str(tmp_path)]
    assert main([*arguments, "--report", str(tmp_path / "page.html")]) == 0
    page = Page(tmp_path / "page.html")
    runs = page.data["runs"]
    assert [run["name"] for run in runs] == [
        f"{problem}: {method}, learning rate {rate}" for problem in "ab" for method, rate in (("sgd", 1), ("adam", 10))
    ]
    assert [run["shown"] for run in runs] == [True, True, False, False]  # losses of one problem at a time
    assert [run["colour"] for run in runs] == [0, 1, 0, 1]
    for curve, result in zip(page.curves("validation loss"), found.results, strict=True):
        np.testing.assert_allclose(curve["y"], result.sweep.validation_loss[result.best, 0], rtol=1e-5)
    assert comparison_in_words(found) in page.text
    cells = re.findall(r"<td>(.*?)</td>", page.source, flags=re.DOTALL)
    assert cells.count("adam") == 3  # on each problem, and its score
    assert "[bold]" not in page.text


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("new/run.html", "argument --report: must be in a folder that exists, got"),
        ("", "argument --report: must name a file, got the folder"),
        ("out/diagnosis.json", "is another result of this command; choose another name"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_the_training(page, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["diagnose", "quadratic", "--out", str(tmp_path / "out"), "--report", str(tmp_path / page)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_plotly_is_reported_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(SystemExit) as stop:
        main(["compare", "diabetes", "--out", str(tmp_path), "--report", str(tmp_path / "page.html")])
    assert stop.value.code == 1
    assert install("report") in capsys.readouterr().err


@pytest.mark.parametrize("command", ["diagnose", "compare"])
def test_help_mentions_the_page(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--report FILE" in capsys.readouterr().out


# The browser

WATCH = """<script>
window.refused = [];
addEventListener("securitypolicyviolation", (event) => refused.push(event.blockedURI));
window.errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
</script>"""
CLICKS = r"""<script>
(async () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const pause = () => new Promise((done) => setTimeout(done, 300));
  const plots = () => all(".js-plotly-plot");
  const marks = () => plots().map((plot) => plot._fullLayout.shapes.filter((s) => s.name === "finding")
    .map((s) => [s.x0, s.x1, plot.querySelectorAll(".shapelayer path").length > 0]));
  const ranges = () => plots().map((plot) => plot._fullLayout.xaxis.range.slice());
  const shown = () => all("#findings .of-run").map((part) => !part.hidden);
  const press = (selector) => document.querySelector(selector).click();
  const outcome = { plots: plots().length, before: marks(), start: ranges() };
  press("#findings .of-run:not([hidden]) button.mark");
  outcome.marked = marks();
  const body = document.querySelector("#findings .of-run:not([hidden]) .body");
  outcome.opened = [body.checkVisibility(), body.innerText];
  let copied = "";
  const clipboard = (value) => Object.defineProperty(navigator, "clipboard", { configurable: true, value });
  clipboard({ writeText: async (text) => { copied = text; } });
  press("button.copy");
  await pause();
  outcome.copied = copied;
  clipboard(undefined);
  document.execCommand = (command) => {
    outcome.copiedOld = [command, document.activeElement.value];
    return true;
  };
  press("button.copy");
  await pause();
  outcome.said = document.getElementById("said").textContent;
  // A drag from a quarter to a half of the width of the second panel, as with a mouse
  const cover = () => document.querySelector(".dragcover") || document;
  const drag = plots()[1].querySelector(".nsewdrag");
  const box = drag.getBoundingClientRect();
  const mouse = (kind, share, on) => on.dispatchEvent(new MouseEvent(kind, {
    bubbles: true, view: window, buttons: kind === "mouseup" ? 0 : 1, clientX: box.left + share * box.width,
    clientY: box.top + box.height / 2,
  }));
  mouse("mousemove", 0.25, drag);
  mouse("mousedown", 0.25, drag);
  for (const share of [0.3, 0.4, 0.5]) mouse("mousemove", share, cover());
  mouse("mouseup", 0.5, cover());
  await pause();
  outcome.zoomed = ranges();
  for (let click = 0; click < 2; click++) {
    mouse("mousedown", 0.5, drag);
    mouse("mouseup", 0.5, cover());
  }
  await pause();
  outcome.reset = ranges();
  press('[data-zoom="in"]');
  await pause();
  outcome.zoomedIn = ranges();
  press('button.zoom');
  await pause();
  outcome.zoomedToFinding = ranges();
  press('[data-zoom="all"]');
  await pause();
  outcome.all = ranges();
  outcome.findingsBefore = shown();
  press('button.run[data-run="1"]');
  await pause();
  outcome.findingsAfter = shown();
  outcome.marksAfter = marks();
  outcome.widths = plots()[0].data.map((trace) => [trace.name, trace.line.width]);
  document.querySelector('input.show[data-run="0"]').click();
  await pause();
  outcome.hidden = plots()[0].data.map((trace) => trace.name);
  const visible = () => all("#curves figure").filter((figure) => figure.checkVisibility());
  outcome.panels = visible().map((figure) => figure.querySelector("h3").innerText);
  document.querySelector('input.show[data-run="0"]').click();
  await pause();
  outcome.panelsAgain = visible().map((figure) => figure.querySelector(".main-svg").clientWidth > 100);
  const ground = () => getComputedStyle(document.body).backgroundColor;
  outcome.ground = [ground()];
  press("#theme");
  await pause();
  outcome.ground.push(ground());
  document.querySelector("#curves details").open = true;
  await pause();
  outcome.more = plots().length;
  outcome.wrong = window.wrong || null;
  outcome.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  outcome.refused = refused;
  outcome.errors = errors;
  const found = document.createElement("pre");
  found.id = "outcome";
  found.textContent = JSON.stringify(outcome);
  document.body.append(found);
})();
</script></body>"""


@pytest.mark.slow
def test_in_a_browser_a_click_marks_a_finding_zooms_are_shared_and_runs_can_be_switched(tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"no browser of these names is installed: {', '.join(names)}")
    path = lab.report({ATTACK: {**TOO_HIGH, "gradient_norm/slope": K}, "cool": FALLS}, tmp_path / "page.html")
    page = path.read_text(encoding="utf-8").replace("<head>", f"<head>{WATCH}", 1)
    head, _, tail = page.rpartition("</body>")
    path.write_text(head + CLICKS + tail, encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    options += ["--window-size=1200,1600", "--virtual-time-budget=30000", "--dump-dom", path.as_uri()]
    result = subprocess.run([browser, *options], capture_output=True, text=True, timeout=300, check=True)
    outcome = json.loads(html.unescape(result.stdout.rsplit('<pre id="outcome">', 1)[1].split("</pre>")[0]))

    (finding,) = gradtx.diagnose(TOO_HIGH).findings
    count = outcome["plots"]
    assert count == 5  # loss, norm, curvature ratio, accuracy, learning rate
    assert outcome["before"] == [[]] * count
    assert outcome["marked"] == [[[finding.steps[0] - 0.5, finding.steps[1] + 0.5, True]]] * count
    assert outcome["opened"][0]
    for text in (finding.evidence, finding.source, finding.remedy):
        assert " ".join(text.split()) in " ".join(outcome["opened"][1].split())
    assert outcome["copied"] == finding.remedy
    assert outcome["copiedOld"] == ["copy", finding.remedy]
    assert outcome["said"] == "The code was copied."
    (first, last), width = outcome["start"][0], outcome["start"][0][1] - outcome["start"][0][0]
    for name in ("start", "zoomed", "reset", "zoomedIn", "zoomedToFinding", "all"):
        assert outcome[name] == [outcome[name][0]] * count, name
    np.testing.assert_allclose(outcome["zoomed"][0], [first + width / 4, first + width / 2], atol=0.02 * width)
    assert outcome["reset"] == outcome["all"] == outcome["start"]
    np.testing.assert_allclose(outcome["zoomedIn"][0], [first + width / 4, last - width / 4])
    assert outcome["zoomedToFinding"][0] == [finding.steps[0] - 1, finding.steps[1] + 1]
    assert (outcome["findingsBefore"], outcome["findingsAfter"]) == ([True, False], [False, True])
    assert outcome["marksAfter"] == [[]] * count
    assert outcome["widths"][-1][0] == "cool · minibatch loss"
    assert outcome["widths"][-1][1] > outcome["widths"][0][1]
    assert outcome["hidden"] == ["cool · minibatch loss"]
    assert outcome["panels"] == ["Loss", "Gradient norm", "Learning rate"]  # what the other run alone has is hidden
    assert outcome["panelsAgain"] == [True] * count
    assert outcome["ground"] == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
    assert outcome["more"] == count + 1
    assert (outcome["wrong"], outcome["requests"], outcome["refused"], outcome["errors"]) == (None, [], [], [])
