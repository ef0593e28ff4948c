"""A hint on what to install is a command that works from where gradtx itself came."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from gradtx._core import installing

ROOT = Path(__file__).parents[2]


def origin(monkeypatch, tmp_path, url):
    """gradtx as if it were in site-packages, installed from `url`."""
    monkeypatch.setattr(installing, "__file__", str(tmp_path / "site-packages" / "gradtx" / "_core" / "installing.py"))

    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return url and json.dumps({"url": url, "dir_info": {}})

    monkeypatch.setattr(installing, "distribution", lambda name: Distribution())


def test_the_hint_in_a_checkout_names_the_checkout():
    assert installing.install("lab") == f"pip install -e '{ROOT}[lab]'"


def test_the_hint_after_pip_install_of_a_folder_names_the_folder(monkeypatch, tmp_path):
    folder = tmp_path / "my folder"
    (folder / "gradtx").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    origin(monkeypatch, tmp_path, folder.as_uri())
    assert installing.install("lab") == f"pip install '{folder}[lab]'"


@pytest.mark.parametrize("url", [None, "https://example.org/gradtx.whl", "file:///no/such/folder"])
def test_the_hint_otherwise_names_the_package(monkeypatch, tmp_path, url):
    origin(monkeypatch, tmp_path, url)
    assert installing.install("checkpoints") == "pip install 'gradtx[checkpoints]'"


def test_every_extra_that_a_hint_names_exists_and_no_hint_is_written_by_hand():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for source in (ROOT / "gradtx").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert set(re.findall(r"\binstall\([\"'](\w+)[\"']\)", text)) <= set(extras)
        assert source.name == "installing.py" or "pip install 'gradtx" not in text
