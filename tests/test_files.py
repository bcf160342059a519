"""Only regular files are read, and only new ones written."""

import os

import pytest

from vidlat import files
from vidlat.files import (
    create_file,
    is_temporary_name,
    read_file,
    replace_file,
    require_folder,
    require_regular_file,
    temporary_name,
)


def make_special(kind, path):
    match kind:
        case "a folder":
            path.mkdir()
        case "a named pipe":
            os.mkfifo(path)
        case "a socket":
            os.mknod(path, 0o140600)
        case "a device":
            path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a socket", "a device"])
def test_anything_but_a_file_is_refused_without_waiting(kind, tmp_path):
    make_special(kind, tmp_path / "it")
    with pytest.raises(OSError, match=f"is {kind}; expected a regular file"):
        require_regular_file(tmp_path / "it")
    with pytest.raises(OSError, match=f"is {kind}; expected a regular file"):
        read_file(tmp_path / "it", 100)


def test_a_missing_file_is_missing(tmp_path):
    for check in (require_regular_file, require_folder, lambda path: read_file(path, 1)):
        with pytest.raises(FileNotFoundError):
            check(tmp_path / "nothing")


def test_a_file_is_read_up_to_a_size(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    require_regular_file(tmp_path / "link")
    assert read_file(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="has 5 bytes; expected 4 at most"):
        read_file(tmp_path / "a", 4)


def test_links_are_refused_where_they_would_lead_elsewhere(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "linked folder").symlink_to(tmp_path)
    with pytest.raises(OSError, match="is a link; expected a regular file"):
        require_regular_file(tmp_path / "link", follow=False)
    with pytest.raises(OSError, match="is a link; expected a folder"):
        require_folder(tmp_path / "linked folder")
    with pytest.raises(OSError, match="is a regular file; expected a folder"):
        require_folder(tmp_path / "a")


def test_replacing_follows_no_link_and_leaves_no_other_file(tmp_path):
    (tmp_path / "outside").write_bytes(b"kept")
    (tmp_path / "file").symlink_to("outside")
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "outside").read_bytes() == b"kept"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "file"}


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_a_temporary_name_that_was_foreseen_is_refused_and_no_link_there_followed(
    tmp_path, monkeypatch, write
):
    (tmp_path / "outside").write_bytes(b"kept")
    monkeypatch.setattr(files, "temporary_name", lambda: "foreseen")
    (tmp_path / "foreseen").symlink_to("outside")
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", b"new")
    assert (tmp_path / "outside").read_bytes() == b"kept"
    assert not (tmp_path / "file").exists()


def test_temporary_names_are_all_different_and_short():
    names = {temporary_name() for _ in range(1000)}
    assert len(names) == 1000
    assert max(map(len, names)) < 50


def test_creating_never_replaces_and_leaves_no_other_file(tmp_path):
    create_file(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("write", "final"), [(replace_file, "replace"), (create_file, "link")])
def test_content_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path, monkeypatch, write, final
):
    done = []
    for name in ("fsync", final):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (done.append(name), real(*a)))
    write(tmp_path / "file", b"new")
    assert done == ["fsync", final, "fsync"]


def test_a_file_that_cannot_be_replaced_leaves_no_other_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        replace_file(tmp_path / "folder", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("write", [create_file, replace_file])
def test_a_file_may_have_the_time_of_this_machine(tmp_path, monkeypatch, write):
    """A file system's own have steps, in which a file may take the inode of another that was deleted."""
    monkeypatch.setattr(files.time, "time_ns", iter(range(10**18 + 1, 10**18 + 9)).__next__)
    identity = write(tmp_path / "a", b"1", own_time=True)
    status = (tmp_path / "a").stat()
    assert identity == (status.st_ino, status.st_mtime_ns)
    assert status.st_mtime_ns == 10**18 + 2


def test_only_temporary_names_are_temporary():
    assert is_temporary_name(temporary_name())
    for name in ("a", "a.partial", f"{temporary_name()}.json", f"a{temporary_name()}"):
        assert not is_temporary_name(name)
