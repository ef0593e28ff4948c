"""The public names are exactly the listed ones. Each has a docstring and is in the README."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx import lab
from gradtx.instruments.diagnosis.challenges import CHALLENGES

from .test_drop_in import RECIPES
from .zoo import ROWS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradtx"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLIC = {n: v for n, v in vars(gradtx).items() if not n.startswith("_") and not inspect.ismodule(v)}
NAMES = set(PUBLIC)
FOLDERS = ("instruments", "methods", "minibatches", "wrappers")


def public_functions(source):
    """The functions without an underscore in a file, with the text of what they return."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return {node.name: ast.unparse(node.returns) if node.returns else "" for node in functions}


def test_the_public_names_are_those_that_the_package_exports_as_themselves():
    exported = re.findall(r"^from \.[\w.]* import (\w+) as (\w+)$", (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert all(name == alias for name, alias in exported)
    assert {name for name, _ in exported} == NAMES | {"landscapes"}
    assert all(value.__module__.startswith("gradtx.") for value in PUBLIC.values())


@pytest.mark.parametrize("folder", ["methods", "wrappers"])
def test_every_file_of_methods_and_wrappers_exports_something(folder):
    helps_others = {"leafwise"}  # tells `packed` which transformations to refuse
    for source in sorted((PACKAGE / folder).glob("[!_]*.py")):
        if source.stem not in helps_others:
            assert public_functions(source).keys() & NAMES, f"{source.name}: export its functions in gradtx/__init__.py"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_function_that_returns_a_transformation_is_exported(folder):
    makes_them = {"instrument", "instruments"}  # they make transformations from measurements
    for source in sorted((PACKAGE / folder).glob("[!_]*.py")):
        returns = {n for n, text in public_functions(source).items() if "GradientTransformation" in text}
        assert returns - makes_them <= NAMES, f"{source.name}: export them in gradtx/__init__.py"


def test_every_recipe_can_be_compared_by_name_and_is_tested_to_converge():
    recipes = {row.factory for row in ROWS if row.factory.__module__.startswith("gradtx.methods") and row.flips_sign}
    recipes -= {gradtx.newton, gradtx.scale_by_learning_rate}  # one needs the loss, the other is a part of all recipes
    names = {recipe.__name__ for recipe in recipes}
    assert names <= lab.METHODS.keys(), "give these a row in METHODS of gradtx/lab/methods.py"
    assert names <= RECIPES.keys(), "give these a row in RECIPES of tests/test_drop_in.py"


def test_every_file_of_methods_is_tested_in_the_mirrored_folder():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "methods").glob("test_*.py"))
    for source in (PACKAGE / "methods").glob("[!_]*.py"):
        names = public_functions(source).keys() & NAMES
        is_named = any(re.search(rf"gradtx\.{name}\b", tests) for name in names)
        assert is_named, f"{source.name}: write a test in tests/methods/ that calls one of its functions as gradtx.NAME"


def test_every_instrument_has_a_test_file_named_like_its_module():
    modules = {PUBLIC[row.name].__module__.split(".")[-1] for row in ROWS if row.is_instrument}
    files = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "instruments").glob("test_*.py")}
    assert modules <= files, "write tests/instruments/test_NAME.py for each of these modules"


def test_every_challenge_of_the_diagnosis_has_a_row_in_the_readme():
    planted_elsewhere = {"stationary", "edge_of_stability"}
    rows = set(re.findall(r"^\| (\w+) \| \d+ \| \d+ \|", README, flags=re.MULTILINE))
    assert set(CHALLENGES) - planted_elsewhere <= rows


INSTRUMENTS = sorted({row.name for row in ROWS if row.is_instrument})


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_reading_of_an_instrument_is_in_its_docstring(name):
    params = {"w": jnp.ones(2)}
    for row in ROWS:
        if row.name == name:
            readings = gradtx.readings(row.make().init(params))
            assert readings
            docstring = inspect.getdoc(PUBLIC[name]) or ""
            missing = {reading for reading in readings if reading not in docstring}
            assert missing == set(), f"{name}: name these readings in its docstring"


@pytest.mark.parametrize("name", sorted(n for n in NAMES if inspect.isfunction(PUBLIC[n])))
def test_help_shows_a_signature_that_a_person_can_read(name):
    for argument, parameter in inspect.signature(PUBLIC[name]).parameters.items():
        assert len(inspect.formatannotation(parameter.annotation)) < 90, argument


def test_every_public_name_is_in_the_readme():
    missing = {name for name in NAMES if not re.search(rf"\b{name}\b", README)}
    assert missing == set(), "name these in README.md"


def test_every_public_name_has_a_docstring_with_an_example():
    for name in NAMES - {"CriticalPoint", "Diagnosis", "Finding", "RangeTest", "RobbinsMonroReport"}:
        assert ">>>" in (inspect.getdoc(getattr(gradtx, name)) or ""), f"{name}: put an example in its docstring"


def test_every_transformation_has_a_row_in_the_zoo():
    annotations = {n: inspect.signature(f).return_annotation for n, f in PUBLIC.items() if inspect.isfunction(f)}
    returns = {name for name, annotation in annotations.items() if "GradientTransformation" in str(annotation)}
    in_zoo = {row.name if row.checked_by else row.factory.__name__ for row in ROWS}
    assert returns == in_zoo, "tests/zoo.py must have a row for each of them"


def test_every_transformation_is_a_plain_pair_of_init_and_update():
    for row in ROWS:
        assert type(row.make()) is optax.GradientTransformationExtraArgs, row
        assert not vars(row.make()), row


def test_the_method_table_of_the_readme_is_complete_and_its_state_sizes_are_right():
    rows = re.findall(r"^\| `gradtx\.(\w+)\(([^`]*)\)` \|.*\|$", README, flags=re.MULTILINE)
    in_zoo = {row.factory.__name__ for row in ROWS if row.flips_sign and not row.checked_by}
    missing = in_zoo - {"scale_by_learning_rate"} - {name for name, _ in rows}
    assert missing == set(), "give these a row in README.md, in the table under 'The methods'"
    for line in re.findall(r"^\| `gradtx\..*\|$", README, flags=re.MULTILINE):
        call, formula, source, state, twin = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        assert formula
        assert source
        assert twin
        tx = eval(call.strip("`"), {"gradtx": gradtx})  # evaluates the call of the table
        assert sum(x.size > 1 for x in _leaves(tx)) == int(state.split()[0]), f"{call}: correct its column 'state'"


def _leaves(tx):
    return jax.tree.leaves(tx.init(jnp.zeros(7)))


def contract(name):
    """The import contract whose name begins so."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return next(c for c in project["tool"]["importlinter"]["contracts"] if c["name"].startswith(name))


def modules_in(folder, package):
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return {f"{package}.{name}" for name in names - {"__init__", "__main__"}}


def test_the_import_contracts_list_every_module():
    methods = modules_in(PACKAGE / "methods", "gradtx.methods")
    shared = {"gradtx.methods.learning_rate", "gradtx.methods.momentum"}
    where = "its list in pyproject.toml must hold exactly these modules"
    assert set(contract("Methods never")["modules"]) == methods - shared, where
    core = modules_in(PACKAGE / "_core", "gradtx._core")
    assert set(contract("The core imports")["source_modules"]) == core - {"gradtx._core.types"}, where
    parts = modules_in(PACKAGE, "gradtx")
    assert set(contract("Pictures")["source_modules"]) == parts - {"gradtx.lab"}, where
    layers = {part for layer in contract("Imports run")["layers"] for part in layer.split(" | ")}
    assert layers == parts | {"gradtx.__main__"}, where


def test_the_version_is_one():
    citation = (ROOT / ".github" / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {gradtx.__version__}\n" in citation
    assert f"## {gradtx.__version__}" in (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_api_reference_builds_without_a_warning(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc comes with the docs extra")
    command = [sys.executable, "-W", "error", "-m", "pdoc", "-d", "google", "gradtx", "-o", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    page = (tmp_path / "gradtx" / "methods" / "sgd.html").read_text(encoding="utf-8")
    assert "ScalarOrSchedule" in page
