"""The folder of decoded videos: which videos it holds, and in decoded.jsonl of which latents they are.

    {"vidlat_version": "0.1.0", "vae": "tiny-16", "decoded": {"cache_id": ..., "vae_hash": ..., ...}}
    {"name": "deep/b.mp4", "latent_crc32c": 3735928559}

The first line holds for all videos: `decoded` is what determines them besides their latents. Each has a line
of its own, which is appended once its file is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidlat.errors import InputError, one_line, shown
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.pipeline.json_lines import append_line, differences_in_words, read_lines, start_lines
from vidlat.store.storage.filesystem import locked

DECODED = "decoded.jsonl"
"""File name of the description of a folder of decoded videos."""


class DecodedFolder:
    """The decoded videos of a folder. checksums: CRC-32C of the latents of each, by file name."""

    def __init__(self, path: Path, checksums: dict[str, int]) -> None:
        self.path, self._checksums = path, checksums

    def holds(self, name: str) -> bool:
        """Whether the folder has this video, and it is known what it is decoded from."""
        return name in self._checksums and (self.path / name).is_file()

    def add(self, name: str, checksum: int) -> None:
        """Append a video whose file is written; raises InputError where that cannot be recorded."""
        self._checksums[name] = checksum
        append_line(self.path / DECODED, {"name": name, "latent_crc32c": checksum})


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Keep other processes from decoding into a folder; raises InputError where one does already."""
    try:
        with locked(folder / DECODED_MARK, wait=False):
            yield
    except BlockingIOError as error:
        raise InputError(
            f"another process decodes into {folder}; wait for it, or give another --out"
        ) from error


def continue_decoded(
    folder: Path, description: Mapping[str, Any], checksums: Mapping[str, int]
) -> DecodedFolder:
    """The folder with its videos so far, if those of a cache may be added to them.

    description: the first line of a new folder; its `decoded` has to be that of the folder. checksums: of the
    latents of the cache's videos, by file name. Raises InputError for a folder with videos that were decoded
    otherwise, or from latents that the cache does not have, and for one that cannot be read.
    """
    path = folder / DECODED
    try:
        decoded, known = _read(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)[:300]}); give another --out, or remove it and the "
            "videos beside it"
        ) from error
    if decoded is None:
        if there := sorted(name for name in checksums if (folder / name).is_file()):
            raise InputError(
                f"{folder} holds {shown(there[0])}, and no {DECODED} that tells what it was decoded from; "
                "give another --out"
            )
        start_lines(path, description)
    elif differences := differences_in_words(description["decoded"], decoded):
        raise InputError(
            f"{folder} holds videos that were decoded otherwise ({differences}); give another --out"
        )
    for name, checksum in known.items():
        if checksums.get(name) != checksum and (folder / name).is_file():
            raise InputError(
                f"{folder} holds {shown(name)}, decoded from latents that this cache does not have; give "
                "another --out, or remove that file"
            )
    return DecodedFolder(folder, known)


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, int]]:
    """How the videos of a folder were decoded, None where nothing tells, and the checksum of each."""
    lines = read_lines(path)
    if lines is None:
        return None, {}
    decoded = lines[0].take("decoded", dict, "an object")
    return decoded, {line.text("name"): line.whole("latent_crc32c", 0, 2**32 - 1) for line in lines[1:]}
