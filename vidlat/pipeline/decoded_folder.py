"""The folder of decoded videos: which videos it holds, and in decoded.jsonl of which latents they are.

    {"vidlat_version": "0.1.0", "vae": "tiny-16", "decoded": {"cache_id": ..., "vae_hash": ..., ...}}
    {"name": "deep/b.mp4", "video_id": "deep/b.avi", "latent_crc32c": 3735928559}

The first line holds for all videos: `decoded` is what determines them besides their latents. Each has a line
of its own, which is appended once its file is written; it keeps its name when videos are added to the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from vidlat.errors import InputError, one_line, shown
from vidlat.pipeline.decoded_names import file_stems, path_below
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.pipeline.json_lines import append_line, differences_in_words, read_lines, start_lines
from vidlat.store.storage.filesystem import locked

DECODED = "decoded.jsonl"
"""File name of the description of a folder of decoded videos."""


class DecodedFolder:
    """The decoded videos of a folder.

    checksums: CRC-32C of the latents of each video that was decoded, by id. stems: of the files of all that
    are to be, see `file_stems`.
    """

    def __init__(self, path: Path, checksums: Mapping[str, int], stems: Mapping[str, str]) -> None:
        self.path, self._checksums, self._stems = path, dict(checksums), stems

    def path_of(self, video_id: str) -> Path:
        """The file of a video; raises InputError as `path_below`."""
        return path_below(self.path, video_id, self._stems)

    def name_of(self, video_id: str) -> str:
        """The same relative to the folder."""
        return str(self.path_of(video_id).relative_to(self.path))

    def holds(self, video_id: str) -> bool:
        """Whether the folder has this video, and it is known what it is decoded from."""
        return video_id in self._checksums and self.path_of(video_id).is_file()

    def files(self) -> Iterator[str]:
        """The names of files in the places of videos, whatever they hold."""
        for video_id in self._stems:
            with suppress(InputError):  # which its decoding ends with
                if self.path_of(video_id).is_file():
                    yield self.name_of(video_id)

    def add(self, video_id: str, checksum: int) -> None:
        """Append a video whose file is written; raises InputError where that cannot be recorded."""
        self._checksums[video_id] = checksum
        line = {"name": self.name_of(video_id), "video_id": video_id, "latent_crc32c": checksum}
        append_line(self.path / DECODED, line)


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
    latents of all videos of the cache, by id. Raises InputError for a folder with videos that were decoded
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
    taken = {video_id: line.name.removesuffix(".mp4") for video_id, line in known.items()}
    decoded_from = {video_id: line.checksum for video_id, line in known.items()}
    found = DecodedFolder(folder, decoded_from, file_stems(checksums, taken))
    if decoded is None:
        if there := min(found.files(), default=None):
            raise InputError(
                f"{folder} holds {shown(there)}, and no {DECODED} that tells what it was decoded from; give "
                "another --out"
            )
        start_lines(path, description)
    elif differences := differences_in_words(description["decoded"], decoded):
        raise InputError(
            f"{folder} holds videos that were decoded otherwise ({differences}); give another --out"
        )
    for video_id, line in known.items():
        if checksums.get(video_id) != line.checksum and (folder / line.name).is_file():
            raise InputError(
                f"{folder} holds {shown(line.name)}, decoded from latents that this cache does not have; "
                "give another --out, or remove that file"
            )
    return found


class _Line(NamedTuple):
    name: str
    checksum: int


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, _Line]]:
    """How the videos of a folder were decoded, None where nothing tells, and what is known of each, by id."""
    lines = read_lines(path)
    if lines is None:
        return None, {}
    decoded = lines[0].take("decoded", dict, "an object")
    return decoded, {
        line.text("video_id"): _Line(line.text("name"), line.whole("latent_crc32c", 0, 2**32 - 1))
        for line in lines[1:]
    }
