"""Without its extra, the lab names the missing packages and the command that installs them."""

import importlib
import re
import sys

import pytest

from gradtx._core.installing import install


def test_an_import_of_the_lab_without_its_extra_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "gradtx.lab.extra")
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"gradtx.lab needs rich and sklearn: {install('lab')}.")):
        importlib.import_module("gradtx.lab.extra")
