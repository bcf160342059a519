"""Tests marked `gpu` are skipped without a GPU, and fail where there should be one."""

import pytest

from tests.conftest import require_gpu


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("VIDLAT_REQUIRE_GPU", raising=False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_they_are_skipped():
    with pytest.raises(pytest.skip.Exception, match="needs a GPU"):
        require_gpu()


@pytest.mark.usefixtures("no_gpu")
def test_where_a_gpu_is_required_they_fail_without_one(monkeypatch):
    monkeypatch.setenv("VIDLAT_REQUIRE_GPU", "1")
    with pytest.raises(pytest.fail.Exception, match="VIDLAT_REQUIRE_GPU"):
        require_gpu()


def test_with_a_gpu_they_run(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("VIDLAT_REQUIRE_GPU", "1")
    require_gpu()
