"""A file of results is written whole or not at all, and it states its kind and format."""

import numpy as np
import pytest

from gradtx import lab
from gradtx.lab.archive import FORMAT, read_archive, whole_file, write_archive

LOADERS = [lab.History.load, lab.Sweep.load]


def test_a_failed_write_keeps_the_older_file_and_leaves_no_partial_file(tmp_path):
    path = tmp_path / "result.npz"
    write_archive(path, "History", {}, {"a": np.arange(3)})

    def full_disk():
        with whole_file(path) as partial:
            partial.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        full_disk()
    with pytest.raises(TypeError, match=r"History.save: bad must be an array of numbers, got one of Python objects"):
        write_archive(path, "History", {}, {"a": np.arange(4), "bad": np.array([1, None])})
    np.testing.assert_array_equal(read_archive(path, "History")[1]["a"], np.arange(3))
    assert list(tmp_path.iterdir()) == [path]


def test_writing_to_a_symbolic_link_writes_its_target(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "result.npz")
    write_archive(tmp_path / "link", "Sweep", {"n": np.int64(3)}, {})
    assert (tmp_path / "link").is_symlink()
    assert read_archive(tmp_path / "result.npz", "Sweep") == ({"n": 3}, {})


def test_a_device_file_is_written_to_directly():
    with whole_file("/dev/null") as path:
        assert str(path) == "/dev/null"


@pytest.mark.parametrize("load", LOADERS)
def test_the_error_for_a_file_of_another_kind_names_its_kind(load, tmp_path):
    name = load.__self__.__name__
    other = {"History": "Sweep", "Sweep": "History"}[name]
    path = tmp_path / "file"
    write_archive(path, other, {}, {})
    with pytest.raises(ValueError, match=f"{name}.load: {path} holds a {other}. Read it with lab.{other}.load"):
        load(path)
    write_archive(path, name, {}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"not a file that {name}.save wrote, or it is damaged"):
        load(path)
    path.write_text("step,loss\n0,1.0\n")
    with pytest.raises(ValueError, match=f"not a file that {name}.save wrote, or it is damaged"):
        load(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match="is a single array"):
        load(path)
    with path.open("wb") as file:
        np.savez(file, weights=np.ones(3))
    with pytest.raises(ValueError, match=r"is an .npz of another program: it holds weights"):
        load(path)
    with pytest.raises(ValueError, match=r"is a folder. A checkpoint is read by lab.run"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("load", LOADERS)
def test_the_error_for_a_file_of_another_format_names_the_format(load, tmp_path, monkeypatch):
    path = tmp_path / "file"
    monkeypatch.setattr("gradtx.lab.archive.FORMAT", FORMAT + 1)
    write_archive(path, load.__self__.__name__, {}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, this gradtx reads format {FORMAT}"):
        load(path)
    with path.open("wb") as file:  # the first format had no mark
        np.savez(file, plain=np.array("{}"), loss=np.ones(3))
    with pytest.raises(ValueError, match="has format 1, which this gradtx no longer reads"):
        load(path)
