"""Writing to a cache in an object store: what replaces a lock is the version of whatever is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

from vidlat.errors import StoreError
from vidlat.store.layout import ARRAYS, MANIFEST, ROOT, array_document
from vidlat.store.metadata import (
    array_frames,
    document_json,
    document_length,
    read_attributes,
    read_schema,
    read_with_version,
    zarr_documents,
)
from vidlat.store.records.manifest import Committed, Manifest, commit_manifest, read_committed
from vidlat.store.schema import CacheSchema
from vidlat.store.storage.interface import Changed, Exists, Storage
from vidlat.store.writing.object_lease import ObjectLease, hold_object
from vidlat.store.writing.writer import CacheWriter, OnWait, not_told


def create_object_cache(storage: Storage, schema: CacheSchema) -> None:
    """Create an empty cache in an object store, unless there is a cache of equal settings.

    The manifest comes last: a kill leaves no cache, and another driver of the same settings goes on. Raises
    StoreError if documents of another cache are there.
    """
    description = schema.to_attributes()
    for name, document in zarr_documents({"vidlat": description}, schema, 0).items():
        with suppress(Exists):
            storage.create(name, document_json(document))
    found = read_schema(storage)
    if found.cache_id != schema.cache_id:
        raise StoreError(
            f"{storage.where}: holds a zarr.json of other settings, left by an encode that was killed; "
            "delete what is there, or give another --out"
        )
    with suppress(Exists):  # another driver was quicker
        storage.create(MANIFEST, Manifest(cache_uuid=uuid4().hex, description=description).to_json())


@contextmanager
def open_object_writer(storage: Storage, purpose: str, on_wait: OnWait = not_told) -> Iterator[ObjectWriter]:
    """As `open_writer`, for a cache in an object store."""
    read_schema(storage)
    with hold_object(storage, purpose, on_wait) as lease:
        yield ObjectWriter(storage, lease)


class ObjectWriter(CacheWriter):
    """As CacheWriter. It knows the manifest that it has read or written last, and replaces no other.

    Where it has taken over from a dead process, it replaces the manifest at once, by a commit of nothing: if
    that process should wake up, whatever it sends is refused.
    """

    def __init__(self, storage: Storage, lease: ObjectLease) -> None:
        super().__init__(storage, lease)
        self._token, self._num_reserved = uuid4().hex, 0
        self._known = read_committed(storage)
        self._last_sequence = self._known.manifest.sequence
        if lease.taken_from:
            with self._held():
                manifest = replace(self._known.manifest, sequence=self._last_sequence + 1)
                self._known = commit_manifest(storage, manifest, self._known.version)

    def last_sequence(self) -> int:
        """As CacheWriter.last_sequence."""
        return self._last_sequence

    def _state(self) -> Committed:
        return self._known

    def _keep(self, state: Committed) -> Committed:
        self._known, self._last_sequence = state, state.manifest.sequence
        return state

    def _grow(self, num_frames: int) -> int:
        """Lengthen `mean`, which reserves the range, for only one of several replaces what all have read."""
        first, *others = (*map(array_document, ARRAYS), ROOT)
        self._num_reserved += 1
        while True:
            array_frames(self.storage, self.schema)  # raises for damaged ones
            (document, version), (other, _) = (
                read_with_version(self.storage, array_document(name)) for name in ARRAYS
            )
            start = max(_length(first, document), _length(first, other))
            documents = zarr_documents(read_attributes(self.storage), self.schema, start + num_frames)
            # A token: of two drivers that reserve as much at once, both would find what they have written.
            token = {"attributes": {"vidlat_reserved_by": f"{self._token}-{self._num_reserved}"}}
            try:
                self.storage.replace(first, document_json(documents[first] | token), version)
                break
            except Changed:
                continue
        # The root last: until then, readers see the old shape of both arrays.
        for name in others:
            self._lengthen(name, documents[name])
        return start

    def _lengthen(self, name: str, document: dict[str, Any]) -> None:
        """Replace a zarr.json, unless another driver has made its array longer."""
        while True:
            found, version = read_with_version(self.storage, name)
            if _length(name, found) >= _length(name, document):
                return
            with suppress(Changed):
                self.storage.replace(name, document_json(document), version)
                return


def _length(name: str, document: dict[str, Any]) -> int:
    return document_length(name, document) or 0
