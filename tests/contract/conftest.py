"""The fixtures are a row of the zoo and its programs. They live as long as the tests of that row."""

import pytest

from tests.contract.programs import Programs
from tests.zoo import ROWS


@pytest.fixture(scope="session", params=ROWS, ids=str)
def row(request):
    """Gives every row in turn."""
    return request.param


@pytest.fixture(scope="session")
def made(row):
    """Gives the row's programs."""
    return Programs(row)
