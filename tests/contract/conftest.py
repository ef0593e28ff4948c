"""A row of the zoo and its programs, for as long as the tests of that row last."""

import pytest

from tests.contract.programs import Programs
from tests.zoo import ROWS


@pytest.fixture(scope="session", params=ROWS, ids=str)
def row(request):
    """Every row in turn."""
    return request.param


@pytest.fixture(scope="session")
def made(row):
    """The row's programs."""
    return Programs(row)
