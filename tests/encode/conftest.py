"""A hub on loopback and an empty local cache, for the tests of downloading weights."""

import time

import pytest

from tests.encode.hub import serve_hub


@pytest.fixture
def hub():
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def use_hub(hub, tmp_path, monkeypatch):
    """Point huggingface_hub, in this process, at the loopback hub and an empty cache; returns the cache."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils._http import close_session

    cache = tmp_path / "hf" / "hub"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "AGENT_HARNESSES_PATH": str(tmp_path / "harnesses.json"),
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        # So small that the test file is written in several pieces.
        "DOWNLOAD_CHUNK_SIZE": 1000,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(file_download, "time", _TimeWithoutSleep)
    close_session()
    yield cache
    close_session()


class _TimeWithoutSleep:
    """Replaces the time module where retries wait."""

    time = time.time

    @staticmethod
    def sleep(seconds):
        pass
