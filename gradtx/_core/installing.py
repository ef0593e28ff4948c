"""The pip command for a missing extra. It depends on where gradtx itself was installed from."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse


def install(extra: str) -> str:
    """The pip command for an extra: from the checkout or the folder that gradtx was installed from, if there is one."""
    checkout = Path(__file__).resolve().parents[2]
    if _is_source(checkout):
        return f"pip install -e '{checkout}[{extra}]'"
    folder = _installed_from()
    return f"pip install '{folder or 'gradtx'}[{extra}]'"


def _installed_from() -> Path | None:
    """The folder that pip installed from (PEP 610), if it is still there."""
    try:
        origin = distribution("gradtx").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = urlparse(json.loads(origin)["url"]) if origin else None
    folder = Path(unquote(url.path)) if url and url.scheme == "file" else None
    return folder if folder and _is_source(folder) else None


def _is_source(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file() and (folder / "gradtx").is_dir()
