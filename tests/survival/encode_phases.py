"""The phases of an encode as seen from outside, by its files and its processes."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.survival.encode_process import POLL_SECONDS, EncodeProcess
from vidlat.store.layout import MANIFEST

Look = Callable[[EncodeProcess], object]
"""Returns what is seen now; a phase has come when this changes."""


def identity(name: str) -> Look:
    """The identity of a file of the cache, which changes when the file is replaced, created or removed."""

    def look(encode):
        try:
            stat = (encode.cache / name).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_ctime_ns

    return look


def names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def shards(name: str, file: str = "") -> Look:
    """The number of shard folders; with `file`, whether the newest has a file whose name ends so."""

    def look(encode):
        folder = encode.cache / name / "c" / "0"
        numbers = [int(number) for number in names_in(folder)]
        if not file:
            return len(numbers)
        newest = max(numbers, default=0)
        return any(found.endswith(file) for found in names_in(folder / str(newest) / "0"))

    return look


def record_files(encode):
    return len([name for name in names_in(encode.cache / "videos/records") if name.endswith(".parquet")])


def merged_files(encode):
    names = names_in(encode.cache / "videos/records")
    return sorted(name for name in names if name.endswith(".parquet") and name[:12] != name[13:25])


def partial_files(encode):
    return sorted(name for name in names_in(encode.cache / "videos/records") if name.endswith(".partial"))


def builds(encode):
    return sorted(name for name in names_in(encode.cache.parent) if name.endswith(".partial"))


def scratch_files(encode):
    return sorted(str(file) for file in encode.scratch.glob("dask-scratch-space/worker-*/vidlat-*/*"))


def num_workers(encode):
    return len(encode.workers())


def has_torch(encode):
    try:
        return "libtorch" in Path(f"/proc/{encode.pid}/maps").read_text()
    except OSError:
        return False


def lease(encode):
    """Whether this encode holds the lease; a dead process may have left one."""
    try:
        holder = (encode.cache / "videos/records/lease").read_text()
    except OSError:
        return False
    return f'"pid": {encode.pid},' in holder


BEFORE_THE_LEASE: dict[str, Look] = {
    "torch loading": has_torch,
    "workers started": num_workers,
    "cache being built": builds,
    "lease taken": lease,
}
WHILE_HELD: dict[str, Look] = {
    "scratch": scratch_files,
    "mean grown": identity("mean/zarr.json"),
    "std grown": identity("std/zarr.json"),
    "root grown": identity("zarr.json"),
    "shard of mean begun": shards("mean"),
    "shard of std begun": shards("std"),
    "shard being written": shards("mean", ".__lock"),
    "shard of mean there": shards("mean", "0"),
    "shard of std there": shards("std", "0"),
    "partial": partial_files,
    "record file": record_files,
    "commit": identity(MANIFEST),
    "merge": merged_files,
    "lease given back": lease,
}
PHASES = BEFORE_THE_LEASE | WHILE_HELD
ONCE = {*BEFORE_THE_LEASE, "merge", "lease given back"}
"""Phases that come only once in an encode."""


def wait_for_phase(encode: EncodeProcess, name: str, times: int = 1) -> bool:
    """Wait until the phase has come `times` times; False if the encode ends before."""
    if name in WHILE_HELD and not _wait_for_changes(encode, lease, 1):
        return False
    return _wait_for_changes(encode, PHASES[name], times)


def _wait_for_changes(encode: EncodeProcess, look: Look, times: int) -> bool:
    before = look(encode)
    while encode.is_running():
        now = look(encode)
        times -= now != before
        if times <= 0:
            return True
        before = now
        time.sleep(POLL_SECONDS)
    return False
