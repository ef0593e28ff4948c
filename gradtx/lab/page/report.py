"""`report`: one or more runs as a page that a person can click through."""

import os
from pathlib import Path
from typing import Any

from gradtx._core.installing import install

from ..archive import whole_file
from ..extra import imported
from .markup import page_html
from .runs import runs_of, summary_of


def report(runs: Any, path: str | Path = "run.html") -> Path:
    """Writes one HTML page with interactive curves, the findings of `gradtx.diagnose`, and remedies to copy.

    The page opens offline in any browser: plotly.js is inside, and nothing is downloaded. All panels share the
    step axis, so zooming into one zooms all. A click on a finding shades its steps in every curve and opens
    its evidence, source and remedy. The curves of several runs lie over one another, and a click switches to the
    findings of another run.

    Curves of more than 2,000 points are thinned, or of fewer if there are many curves: equal parts keep their lowest
    and highest values. The diagnosis reads every step. The same runs give the same bytes.

    **Costs**: one diagnosis for each run. The file has 5 MB, nearly all of it plotly.js, and up to 4 MB for the curves.

    Args:
        runs: whatever `gradtx.diagnose` takes, such as a `History`, a `Recorder` or a dict of arrays; or several: a
            dict from names to runs, a list of histories or recorders, a `Sweep` (every key at its best point) or a
            `Comparison` (every method at its best learning rate, from the first seed).
        path: the file. Its old content is replaced once the new page is complete.

    Returns:
        The path.

    Raises:
        FileNotFoundError: the folder of `path` does not exist. IsADirectoryError: `path` is a folder.
        ModuleNotFoundError: plotly is not installed.
        TypeError, ValueError: `runs` holds something that is not a run, as in `gradtx.diagnose`.

    >>> import tempfile
    >>> from gradtx import lab
    >>> runs = {"falls": {"loss": [4.0, 2.0, 1.0]}, "rises": {"loss": [4.0, 5.0, 7.0]}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = lab.report(runs, f"{folder}/a.html")
    ...     print(path.name, "rises" in path.read_text(encoding="utf-8"))
    a.html True
    """
    target = checked_path(path)
    library = plotly_js()
    html = page_html(runs_of(runs), summary_of(runs), runs, library)
    with whole_file(target) as partial:
        partial.write_bytes(html.encode("utf-8", "replace"))  # a name may hold half of a surrogate pair
    return target


def checked_path(path: Any) -> Path:
    """The path. Raises if no file can be written there."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"report: path must be a str or a Path, such as 'run.html', got {path!r}.")
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"report: path must name a file, got the folder {str(path)!r}: add run.html to it.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"report: path must be in a folder that exists, got {str(path)!r}: make {str(target.parent)!r} first."
        )
    return target


def plotly_js() -> str:
    """The source of plotly.js, as one script. Raises if plotly is not installed."""
    plotly = imported("plotly.offline", f"report draws with plotly: {install('report')}.")
    return plotly.get_plotlyjs().replace("</script", "<\\/script")
