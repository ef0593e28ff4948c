"""The command line, as a user types it."""

import json

import pytest

from gradtx import lab
from gradtx.__main__ import main

QUICK = ["--steps", "20", "--seeds", "2", "--learning-rates", "2"]


def test_compare_prints_a_table_and_writes_json_and_figure(tmp_path, capsys):
    assert main(["compare", "digits", "--methods", "sgd,adam", *QUICK, "--out", str(tmp_path / "new" / "folder")]) == 0
    out = capsys.readouterr().out
    assert "sgd" in out
    assert "validation" in out
    assert "adagrad" not in out
    results = json.loads((tmp_path / "new" / "folder" / "comparison.json").read_text())["results"]
    assert [r["method"] for r in results] == ["sgd", "adam"]
    assert (tmp_path / "new" / "folder" / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "digits", "--methods", "sgd,foo"], "no method is called 'foo'; there are sgd, momentum, nesterov"),
        (["compare", "mnist"], "no problem is called 'mnist'; there are digits"),
        (["compare", "digits", "--steps", "0"], "--steps: must be a whole number of at least 1, got '0'"),
        (["compare", "digits", "--seeds", "-3"], "--seeds: must be a whole number of at least 1, got '-3'"),
        (["compare", "digits", "--batch-size", "9999"], "--batch-size: must be at most 1437, got 9999"),
        (["compare", "digits", "--out", "/dev/null/x"], "--out: cannot write to /dev/null/x"),
        ([], "COMMAND"),
    ],
)
def test_bad_arguments_exit_2_and_say_what_is_good(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["compare"], ["list"]])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: python -m gradtx" in capsys.readouterr().out


def test_list_names_problems_and_methods(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*lab.METHODS, *lab.PROBLEMS))


def test_a_break_keeps_what_is_finished(tmp_path, capsys, monkeypatch):
    real, calls = lab.comparisons.__globals__["train_grid"], []

    def breaks_at_the_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setitem(lab.comparisons.__globals__, "train_grid", breaks_at_the_second)
    assert main(["compare", "digits", "--methods", "sgd,adam", *QUICK, "--out", str(tmp_path)]) == 130
    assert "1 of 2 methods were finished and are kept" in capsys.readouterr().err
    assert [r["method"] for r in json.loads((tmp_path / "comparison.json").read_text())["results"]] == ["sgd"]
    assert (tmp_path / "comparison.png").exists()


def test_a_missing_extra_is_named_with_the_command_that_installs_it(capsys, monkeypatch):
    import sys

    for name in [n for n in sys.modules if n.startswith("gradtx.lab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("gradtx.lab")
    monkeypatch.setitem(sys.modules, "rich.table", None)
    assert main(["list"]) == 1
    assert "pip install 'gradtx[lab]'" in capsys.readouterr().err
