"""Each of the chapter's 146 claims is named by an assertion that a notebook executes.

An assertion in the last cell of a notebook ends in a comment that names the claims it stands for:

    assert steps["momentum"] < steps["plain"]  # 4.2.1.6: momentum arrives sooner
    assert jnp.allclose(a, b)  # beyond the chapter: both forms agree

`claims.toml` holds the numbers, one sentence each. An assertion that stands for no claim says "beyond the chapter".
"""

import ast
import io
import re
import tokenize
import tomllib
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
LEDGER = tomllib.loads((ROOT / "tests" / "claims.toml").read_text(encoding="utf-8"))
CLAIMS, OPEN, TESTED = LEDGER["claims"], set(LEDGER["open"]), LEDGER.get("tested", {})
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
NUMBER = re.compile(r"\d(?:\.\d+)+[a-z]?")
COMMENT = re.compile(r"# (?P<numbers>\d(?:\.\d+)+[a-z]?(?:, \d(?:\.\d+)+[a-z]?)*): \S")
BEYOND = re.compile(r"# beyond the chapter: \S")


def comments_by_line(code):
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def named_claims(code):
    """Returns [(the claims that it names, the assertion)] for the assertions of a cell, in their order."""
    comments, found = comments_by_line(code), []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assert):
            comment = comments.get(node.end_lineno, "")
            if not BEYOND.match(comment):
                match = COMMENT.match(comment)
                assert match, f"no claim is named by: {ast.unparse(node)}  {comment}"
                found.append((match["numbers"].split(", "), node))
    return found


def computed_names(node):
    """Returns the variables of an assertion. An assertion without variables asserts a constant."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def last_cell(source):
    return jupytext.read(source).cells[-1].source


def claimed():
    """Returns a dict from each claimed number to the notebooks that claim it."""
    found = {}
    for source in SOURCES:
        for numbers, _ in named_claims(last_cell(source)):
            for number in numbers:
                found.setdefault(number, set()).add(source.stem)
    return found


def test_the_ledger_holds_146_claims_with_one_sentence_each():
    assert len(CLAIMS) == 146
    for number, sentence in CLAIMS.items():
        assert NUMBER.fullmatch(number)
        assert sentence.endswith(".")
        assert len(sentence.split()) >= 5
    assert len(set(CLAIMS.values())) == 146


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_assertion_of_a_last_cell_names_known_claims(source):
    found = named_claims(last_cell(source))
    assert {number for numbers, _ in found for number in numbers} <= CLAIMS.keys()
    for _, node in found:
        assert computed_names(node)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_assertion_of_a_last_cell_is_executed(source):
    """Assertions in branches and functions are refused, because they might not run. Assertions in loops are allowed."""
    for statement in ast.parse(last_cell(source)).body:
        if any(isinstance(node, ast.Assert) for node in ast.walk(statement)):
            assert isinstance(statement, ast.Assert | ast.For)


def test_every_claim_is_named_by_an_assertion_of_a_notebook():
    found = claimed()
    missing = [number for number in CLAIMS if number not in found and number not in TESTED and number not in OPEN]
    assert not missing


def test_an_open_claim_is_in_the_ledger_and_no_notebook_claims_it():
    assert CLAIMS.keys() >= OPEN
    assert not OPEN & (claimed().keys() | TESTED.keys())


def test_the_chapter_page_lists_every_claim_with_the_notebooks_that_check_it():
    page = (ROOT / "notebooks" / "chapter.md").read_text(encoding="utf-8").splitlines()
    lines = {line.split("**")[1]: line for line in page if line.startswith("- **")}
    assert lines.keys() == CLAIMS.keys()
    found = claimed()
    for number, sentence in CLAIMS.items():
        assert lines[number].startswith(f"- **{number}** {sentence} (")
        linked = set(re.findall(r"\]\((\w+)\.ipynb\)", lines[number]))
        assert linked == found.get(number, set())


def test_a_claim_outside_the_notebooks_has_a_test_that_exists_and_a_reason():
    for number, entry in TESTED.items():
        path, name = entry["test"].split("::")
        module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert number in CLAIMS
        assert name.startswith("test_")
        assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
        assert len(entry["reason"].split()) >= 5


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\nassert x", "no claim is named"),
        ("x = 1\nassert x  # it is one", "no claim is named"),
        ("x = 1\n# 1.1.1: above, not behind\nassert x", "no claim is named"),
        ("x = 1\nassert x  # 1.1.1", "no claim is named"),
    ],
)
def test_an_assertion_without_a_named_claim_is_refused(code, message):
    with pytest.raises(AssertionError, match=message):
        named_claims(code)


def test_the_comment_of_a_long_assertion_may_follow_its_last_line():
    code = (
        "x = 1\nassert all(\n    x == y for y in [1]\n)  # 1.1.1, 2.2.2a: x is one\nassert x  # beyond the chapter: so"
    )
    assert [numbers for numbers, _ in named_claims(code)] == [["1.1.1", "2.2.2a"]]
