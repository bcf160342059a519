"""Storages that are cut off at a verb, and what a copy has left in one."""

import shutil
import threading
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from tests.store.faults import Killed
from tests.store.test_prune import content_of
from vidlat.store.layout import MANIFEST
from vidlat.store.storage.interface import Missing
from vidlat.store.verify.cache import verify_cache

VERBS = ("read", "open", "create", "replace", "list", "delete")


class CutOff:
    """A storage whose verbs raise `error` from number `step` on: before that one does anything, or after.

    met: whether there were so many.
    """

    def __init__(self, storage, step, *, after=False, error=Killed):
        self.storage, self.step, self.after, self.error = storage, step, after, error
        self.where, self.is_listed = storage.where, storage.is_listed
        self.numbers, self.lock, self.met = count(), threading.Lock(), False

    def __getattr__(self, name):
        verb = getattr(self.storage, name)
        return (lambda *arguments: self.called(verb, arguments)) if name in VERBS else verb

    def called(self, verb, arguments):
        with self.lock:
            number = next(self.numbers)
            self.met |= number >= self.step
        if number > self.step or (number == self.step and not self.after):
            raise self.error
        result = verb(*arguments)
        if number == self.step:
            raise self.error
        return result


def files_in(storage):
    """Every key of a storage and its content."""
    return {key: storage.read(key)[0] for key, _ in storage.list()}


def published(storage):
    """The latents by id of the cache in a storage, which verify finds sound; None where there is no cache.

    Files that no manifest names are left out, as a reader leaves them out.
    """
    try:
        storage.read(MANIFEST)
    except Missing:
        return None
    folder = Path(mkdtemp()) / "l.zarr"
    try:
        for key, content in files_in(storage).items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(content)
        problems = [
            problem for problem in verify_cache(folder) if problem.kind not in ("leftover", "foreign")
        ]
        assert not problems
        return content_of(folder)
    finally:
        shutil.rmtree(folder.parent)
