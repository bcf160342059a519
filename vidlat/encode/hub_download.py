"""Brings one file from a hub into the local cache: whole and proven, or not at all.

The bytes go to a partial file that a later attempt goes on with; they are hashed, and only then given their
place in the cache, so that neither this project nor any other program sees a wrong or half file there.
HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN act as in every program built on huggingface_hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidlat.encode.hub_cache import (
    HubFile,
    check_file_hash,
    explain_difference,
    find_cached,
    is_sha256,
    prove_cached,
    read_record,
    repo_folder,
    sha256_of,
)
from vidlat.errors import WeightsError


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedFile:
    """What the hub says of a file before it is downloaded."""

    commit: str
    sha256: str
    num_bytes: int


def download(file: HubFile) -> Path:
    """Fetch the file from the hub and return its path in the local cache.

    A file the cache already holds is not fetched twice, an interrupted download goes on where it stopped.
    Raises WeightsError, one line, when the hub cannot be reached or refuses, when it offers another file
    than the one expected, and when the bytes received are not the ones it stated (they are removed).
    """
    import httpx2
    from huggingface_hub import hf_hub_download

    try:
        stated = ask_hub(file)
        _bring_blob(file, stated)
        cached = find_cached(file)
        if cached is not None and sha256_of(cached) != stated.sha256:
            cached.unlink()
        # The bytes are in place: this only links the file under its name and revision.
        path = Path(hf_hub_download(file.repo, file.filename, revision=file.revision))
        prove_cached(file, path, reread=True)
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise WeightsError(f"{file}: {explain(error)}") from error
    return path


def ask_hub(file: HubFile) -> StatedFile:
    """The commit, sha256 and size the hub states for the file, without downloading it.

    Raises WeightsError when it states no sha256, or another than the published or kept one.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(file.repo, file.filename, revision=file.revision)
    metadata = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if metadata.commit_hash is None or metadata.size is None or not is_sha256(metadata.etag or ""):
        raise WeightsError(f"{file}: {constants.ENDPOINT} states no commit, size and sha256; is it a hub?")
    stated = StatedFile(commit=metadata.commit_hash, sha256=str(metadata.etag), num_bytes=metadata.size)
    kept = read_record(file)
    expected = file.sha256 or (kept["sha256"] if kept else stated.sha256)
    if stated.sha256 != expected:
        raise WeightsError(f"{file}: the hub's {explain_difference(file, stated.sha256, expected)}")
    return stated


def _bring_blob(file: HubFile, stated: StatedFile) -> None:
    """Put the file's bytes under their hash into the cache, unless they are there and right."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public, not in __all__

    blob = repo_folder(file) / "blobs" / stated.sha256
    # The name huggingface_hub gives unfinished downloads: its own tools list and clean them.
    partial = blob.with_name(f"{blob.name}.incomplete")
    blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(repo_folder(file) / "vidlat.lock"):
        if blob.exists() and sha256_of(blob) == stated.sha256:
            return
        _download_bytes(file, stated, partial)
        try:
            check_file_hash(partial, stated.sha256)
        except WeightsError as error:
            partial.unlink()
            raise WeightsError(f"{file}: {error}; it was removed, fetch again") from error
        partial.replace(blob)


def _download_bytes(file: HubFile, stated: StatedFile, partial: Path) -> None:
    import httpx2
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, not in __all__

    if partial.exists() and partial.stat().st_size > stated.num_bytes:
        partial.unlink()
    # By commit, not revision: what is fetched in two halves must be one file even if a branch moves.
    url = hf_hub_url(file.repo, file.filename, revision=stated.commit)
    with partial.open("ab") as rest:
        try:
            http_get(
                url,
                rest,
                resume_size=rest.tell(),
                # A range of a compressed answer is not a range of the file.
                headers={**build_hf_headers(), "Accept-Encoding": "identity"},
                expected_size=stated.num_bytes,
                displayed_filename=file.filename,
            )
        except httpx2.TransportError as error:
            got = f"{rest.tell()} of {stated.num_bytes} bytes are kept"
            raise WeightsError(
                f"{file}: the connection broke ({one_line(error)}); {got}, the next fetch goes on from there"
            ) from error


def explain(error: Exception) -> str:
    """One line on why a hub could not be used and what to do, for any error huggingface_hub raises."""
    import httpx2
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch it"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if isinstance(error, errors.GatedRepoError) or status in (401, 403):
            return (
                f"{hub} refuses access ({status}): accept the terms on the model's page, "
                "then log in with `hf auth login` or set HF_TOKEN"
            )
        if status == 404:
            return f"{hub} has no such repository, revision or file (404): {one_line(error)}"
        return f"{hub} answered {status}, try again later: {one_line(error)}"
    if isinstance(error, httpx2.TimeoutException):
        return f"{hub} did not answer in {constants.HF_HUB_ETAG_TIMEOUT} seconds; check the network or proxy"
    if isinstance(error, (httpx2.HTTPError, httpx2.InvalidURL)):
        return f"{hub} cannot be reached ({one_line(error)}); check the network, proxy and HF_ENDPOINT"
    return f"{one_line(error)} (local cache: {constants.HF_HUB_CACHE})"


def one_line(error: Exception) -> str:
    """The error's text without line breaks; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
