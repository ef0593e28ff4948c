"""Results in an .npz file: arrays of every dtype, trees with their containers, and a mark that names the kind."""

import ast
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FORMAT = 2  # 1 had neither the mark nor the dtypes


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to. It takes the place of `path` when the block ends without an error.

    So a full disk, an interrupt or a crash leaves the older file as it was. If `path` is not a plain file, such as a
    pipe, it is written to directly.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")  # the suffix may select the format
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_archive(path: str | Path, kind: str, plain: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Writes an .npz with a mark of its kind, plain values and arrays by name. It writes the whole file or none.

    Dicts of arrays are `flattened`. Raises if an array holds Python objects.
    """
    held, dtypes = {}, {}  # an .npz stores bfloat16 as two untyped bytes, so the names of the dtypes are written too
    for name, array in flattened(arrays).items():
        is_key = isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
        held[name] = np.asarray(jax.random.key_data(array) if is_key else array)
        dtypes[name] = f"key:{jax.random.key_impl(array)}" if is_key else held[name].dtype.name
        if held[name].dtype.hasobject:
            raise TypeError(f"{kind}.save: {name} must be an array of numbers, got one of Python objects: {array!r}.")
    header = {"gradtx": kind, "format": FORMAT, "dtypes": dtypes}
    text = json.dumps(header | {"plain": plain}, default=lambda value: value.item())  # JSON has no NumPy scalars
    with whole_file(path) as partial, partial.open("wb") as file:  # for a file object NumPy does not append .npz
        np.savez_compressed(file, header=np.array(text), **{f"array/{name}": array for name, array in held.items()})


def read_archive(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The plain values and arrays that `write_archive` wrote. Raises if the file is damaged, or of another kind."""
    who = f"{kind}.load: {path}"
    if Path(path).is_dir():
        raise ValueError(f"{who} is a folder. A checkpoint is read by lab.run(..., checkpoint=folder).")
    with Path(path).open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            found = {} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        except (ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{who} is not a file that {kind}.save wrote, or it is damaged ({error}).") from error
    if isinstance(loaded, np.ndarray):
        raise ValueError(f"{who} is a single array (.npy), not a file that {kind}.save wrote.")
    if "plain" in found and "header" not in found:
        raise ValueError(
            f"{who} has format 1, which this gradtx no longer reads (it reads {FORMAT}). Make the run again."
        )
    header = json.loads(str(found["header"])) if "header" in found else {}
    if not isinstance(header, dict) or "gradtx" not in header:
        raise ValueError(f"{who} is an .npz of another program: it holds {', '.join(found) or 'nothing'}.")
    if header["gradtx"] != kind:
        raise ValueError(f"{who} holds a {header['gradtx']}. Read it with lab.{header['gradtx']}.load.")
    if header["format"] != FORMAT:
        raise ValueError(f"{who} has format {header['format']}, this gradtx reads format {FORMAT}.")
    return header["plain"], {n: _of_dtype(found[f"array/{n}"], dtype) for n, dtype in header["dtypes"].items()}


def flattened(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays by name. The arrays of a dict are called "name/key" for each of its keys."""
    flat: dict[str, Any] = {}
    for name, value in arrays.items():
        flat |= {f"{name}/{key}": array for key, array in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def grouped(arrays: dict[str, Any], *groups: str) -> dict[str, Any]:
    """The inverse of `flattened`, if the dicts have the names `groups`."""
    found: dict[str, Any] = {group: {} for group in groups}
    for name, array in arrays.items():
        group, _, key = name.partition("/")
        if group in groups:
            found[group][key] = array
        else:
            found[name] = array
    return found


def _of_dtype(array: np.ndarray, name: str) -> Any:
    if name.startswith("key:"):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=name.removeprefix("key:"))
    return array.view(jnp.dtype(name)) if array.dtype.kind == "V" else array


def tree_to_plain(tree: Any, leaves: list[Any]) -> Any:
    """The containers of a tree as JSON. Its arrays are appended to `leaves`, and the JSON holds their indices.

    Lists, tuples, None and dicts (with any keys) keep their type; an object becomes a dict of its attributes.
    """
    if tree is None:
        return None
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)[0]
    if len(children) == 1 and not children[0][0]:
        leaves.append(tree)
        return len(leaves) - 1
    inner = [(path[0], tree_to_plain(child, leaves)) for path, child in children]
    if isinstance(tree, dict) or any(hasattr(key, "name") for key, _ in inner):
        return ["dict", [[_key_text(key), child] for key, child in inner]]
    return ["tuple" if isinstance(tree, tuple) else "list", [child for _, child in inner]]


def tree_from_plain(plain: Any, leaves: list[Any]) -> Any:
    """The tree that `tree_to_plain` described."""
    if plain is None:
        return None
    if isinstance(plain, int):
        return leaves[plain]
    kind, children = plain
    if kind == "dict":
        return {ast.literal_eval(key): tree_from_plain(child, leaves) for key, child in children}
    inner = [tree_from_plain(child, leaves) for child in children]
    return tuple(inner) if kind == "tuple" else inner


def _key_text(key: Any) -> str:
    """A dict's key or an attribute's name as a Python literal. A key without a literal becomes a string."""
    value = getattr(key, "key", getattr(key, "name", key))
    try:
        is_literal = ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        is_literal = False
    return repr(value if is_literal else str(value))
