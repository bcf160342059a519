"""Storage in a folder: killed at any step, on a full or broken disk, and among others' files."""

import errno
import fcntl
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.store.faults import every_kill, meet
from tests.thorough import steps
from vidlat.errors import InputError, StoreError
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Changed, Exists, Unreachable
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.opening import open_storage

VERBS = ("create", "create in a new folder", "replace", "delete")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "it"


@pytest.fixture
def storage(folder):
    return LocalStorage(folder, create=True)


def contents(storage):
    return {key: storage.read(key)[0] for key, _ in storage.list()}


class Trials:
    """One verb after the other on keys of their own; `key`, what it held `before`, and what it shall hold."""

    def __init__(self, verb, folder):
        self.verb, self.folder, self.number = verb, folder, 0
        self.storage = LocalStorage(folder, create=True)
        self.prepare()

    def prepare(self):
        self.number += 1
        self.key = f"{self.number}/a/b" if self.verb == "create in a new folder" else f"a/{self.number}"
        self.before = None if self.verb.startswith("create") else b"old"
        self.after = None if self.verb == "delete" else b"new"
        if self.before:
            self.version = self.storage.create(self.key, self.before)

    def run(self):
        match self.verb:
            case "replace":
                self.storage.replace(self.key, b"new", self.version)
            case "delete":
                self.storage.delete(self.key)
            case _:
                self.storage.create(self.key, b"new")

    def check(self, *, is_done):
        """It happened, or nothing did; in its place another can do it; and no other key was touched."""
        found = contents(self.storage).get(self.key)
        assert found in ((self.after,) if is_done else (self.before, self.after))
        another = LocalStorage(self.folder)
        match self.verb, found:
            case _, None:
                another.create(self.key, b"newest")
            case "create", b"new":
                with pytest.raises(Exists):
                    another.create(self.key, b"newest")
            case _:
                another.replace(self.key, b"newest", another.read(self.key)[1])
        self.prepare()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_killed_at_any_step_happened_wholly_or_not_at_all(folder, monkeypatch, verb):
    trials = Trials(verb, folder)
    for _ in every_kill(trials.run, monkeypatch):
        trials.check(is_done=False)
    assert set(contents(trials.storage).values()) <= {b"old", b"new", b"newest"}


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_fails_is_unreachable(folder, monkeypatch, verb, stays):
    trials = Trials(verb, folder)
    for step in steps():
        number = (errno.ENOSPC, errno.EROFS, errno.EIO)[trials.number % 3]
        hit, error = meet(trials.run, step, monkeypatch, number, stays)
        if error is not None:
            assert type(error) is Unreachable
            assert "look at its permissions and its disk" in str(error)
        trials.check(is_done=error is None)
        if hit is None:
            assert step > 2
            return


def test_a_file_system_without_locks_replaces_nothing(storage, monkeypatch):
    version = storage.create("a", b"1")

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(Unreachable, match=r"a: got No locks available; .* look at its permissions"):
            storage.replace("a", b"2", version)
        storage.create("b", b"1")
    assert contents(storage) == {"a": b"1", "b": b"1"}


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(storage, monkeypatch):
    storage.create("a/b", b"1")
    real = os.scandir

    def scan(folder):
        if str(folder).endswith("/a"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scan)
    for prefix in ("", "a"):
        with pytest.raises(Unreachable, match=r"/a: got Permission denied; "):
            [*storage.list(prefix)]


def test_a_folder_that_has_gone_is_not_taken_for_empty(storage, folder):
    version = storage.create("a", b"1")
    folder.rename(folder.with_name("moved"))
    verbs = [
        lambda: storage.read("a"),
        lambda: storage.create("b", b"1"),
        lambda: storage.replace("a", b"2", version),
        lambda: [*storage.list()],
        lambda: [*storage.list("a")],
        lambda: storage.delete("a"),
    ]
    for verb in verbs:
        with pytest.raises(Unreachable, match=r"it: got no folder; expected one"):
            verb()
    assert not folder.exists()


def test_what_is_being_written_is_not_listed(storage, folder, monkeypatch):
    storage.create("a/b", b"1")
    (folder / "a" / f".{'0' * 32}.partial").write_bytes(b"half")
    assert contents(storage) == {"a/b": b"1"}


def test_a_pipe_is_not_read(storage, folder):
    os.mkfifo(folder / "a")
    for read in (storage.read, lambda key: storage.open(key, 1)):
        with pytest.raises(StoreError, match=r"a: cannot be read: is a named pipe; expected") as caught:
            read("a")
        assert type(caught.value) is StoreError


def test_a_file_changed_by_other_means_is_changed(storage, folder):
    version = storage.create("a", b"1")
    (folder / "a").write_bytes(b"2")
    with pytest.raises(Changed):
        storage.replace("a", b"3", version)
    assert contents(storage) == {"a": b"2"}


def test_who_waits_for_a_lock_sees_what_was_put_in_place_meanwhile(storage, monkeypatch):
    version = storage.create("a", b"1")
    is_locking, flock, replace_file = threading.Event(), fcntl.flock, filesystem.replace_file

    def lock(handle, operation):
        if threading.current_thread() is not threading.main_thread():
            is_locking.set()
        flock(handle, operation)

    with ThreadPoolExecutor(1) as pool:

        def replace(*arguments, **named):
            nonlocal second
            monkeypatch.setattr(filesystem, "replace_file", replace_file)
            second = pool.submit(storage.replace, "a", b"3", version)
            assert is_locking.wait(60)
            return replace_file(*arguments, **named)

        second = None
        monkeypatch.setattr(fcntl, "flock", lock)
        monkeypatch.setattr(filesystem, "replace_file", replace)
        storage.replace("a", b"2", version)
        with pytest.raises(Changed):
            second.result()
    assert contents(storage) == {"a": b"2"}


def test_creation_waits_for_the_disk(storage, folder, monkeypatch):
    """The content, its name, and the names of the folders that were made for it."""
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(os.path.realpath(f"/proc/self/fd/{handle}").removeprefix(str(folder.parent)))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    storage.create("a/b/c", b"1")
    partial = synced.pop(2)
    assert partial.startswith("/it/a/b/.")
    assert synced == ["/it", "/it/a", "/it/a/b"]
    synced.clear()
    storage.create("a/b/c", b"1")  # by another, which may have been killed before its first sync
    assert synced[:2] == ["/it", "/it/a"]
    assert synced[-1] == "/it/a/b"


@pytest.mark.parametrize("write", [False, True])
def test_a_path_is_a_folder_of_this_machine(tmp_path, write, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    open_storage(str(tmp_path), write=True).create("a", b"1")
    assert open_storage("~", write=write).read("a")[0] == b"1"


def test_a_missing_folder_is_unreachable_unless_it_is_to_be_written(tmp_path):
    where = str(tmp_path / "a" / "b")
    with pytest.raises(
        Unreachable, match=r"b: got no folder; expected one: look at the path, or mount its disk"
    ):
        open_storage(where)
    open_storage(where, write=True).create("c", b"1")
    assert contents(open_storage(where)) == {"c": b"1"}
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unreachable, match=r"file: got no folder"):
        open_storage(str(tmp_path / "file"))
    with pytest.raises(Unreachable, match=r"file: got File exists"):
        open_storage(str(tmp_path / "file"), write=True)


REFUSED = {
    "hf://datasets/a/b": r"a hub is not read or written in place; expected a folder, .*: `vidlat pull`",
    "ftp://a/b": r"got ftp://; expected a folder, s3://, gs:// or az://, or https:// to read from",
    "http://a/b": r"got http://; expected a folder",
    "s3://": r"got no name; expected s3://BUCKET/FOLDER",
    "gs:///": r"got no name; expected gs://BUCKET/FOLDER",
}


@pytest.mark.parametrize("where", REFUSED)
def test_an_address_that_leads_nowhere_is_refused(where):
    for write in (False, True):
        with pytest.raises(StoreError, match=f"^{re.escape(where)}: {REFUSED[where]}"):
            open_storage(where, write=write)


def test_a_web_server_is_not_opened_to_be_written():
    open_storage("https://127.0.0.1/x")
    with pytest.raises(StoreError, match=r"https://127.0.0.1/x: can be read, not written; expected a folder"):
        open_storage("https://127.0.0.1/x", write=True)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "localhost", "", "http://", "http://a b", "ftp://a"])
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_an_endpoint_that_is_no_url_is_named(name, endpoint, monkeypatch):
    monkeypatch.setenv(name, endpoint)
    with pytest.raises(
        InputError, match=rf"{name} in the environment: got '{endpoint}'; expected http://HOST:PORT"
    ):
        open_storage("s3://bucket/x")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://host/", "http://[::1]:9/path"])
def test_an_endpoint_that_is_a_url_is_taken(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    open_storage("s3://bucket/x")


def test_azure_without_an_account_says_which_variable_names_it(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(Unreachable, match=r"Account must be specified; .*AZURE_STORAGE_ACCOUNT_NAME"):
        open_storage("az://container/x")


def test_without_obstore_a_folder_is_opened_and_an_address_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("vidlat.store.storage.opening.find_spec", lambda name: None)
    open_storage(str(tmp_path), write=True)
    with pytest.raises(StoreError, match=r"needs obstore, .*: pip install 'vidlat\[remote\]'"):
        open_storage("s3://bucket/x")
