"""A table on a narrow screen drops the columns that matter least."""

import io

import pytest
from rich.console import Console

from gradtx.lab.tables import FittingTable


def shown(width):
    table = FittingTable(title="t", caption="About it.", leave_out=["extra", "more"])
    cells = {"method": "rmsprop_momentum", "extra": "x" * 20, "more": "y" * 20, "score": "0.93"}
    for heading in cells:
        table.add_column(heading)
    table.add_row(*cells.values())
    output = io.StringIO()
    Console(file=output, width=width).print(table)
    return output.getvalue()


@pytest.mark.parametrize(("width", "left"), [(100, {"extra", "more"}), (60, {"more"}), (40, set())])
def test_columns_are_dropped_in_the_stated_order_and_the_others_stay(width, left):
    text = shown(width)
    assert "rmsprop_momentum" in text
    assert "0.93" in text
    assert {name for name in ("xxxx", "yyyy") if name in text} == {"xxxx" if n == "extra" else "yyyy" for n in left}
    assert max(map(len, text.splitlines())) <= width
    gone = [name for name in ("extra", "more") if name not in left]
    assert ("The screen is too narrow for: " + ", ".join(gone) in " ".join(text.split())) == bool(gone)
