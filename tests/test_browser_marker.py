"""Tests marked `browser` are skipped without Chromium, and fail where there should be one."""

import pytest

from tests.conftest import require_browser


@pytest.fixture
def no_browser(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("VIDLAT_REQUIRE_BROWSER", raising=False)


@pytest.mark.usefixtures("no_browser")
def test_without_chromium_they_are_skipped():
    with pytest.raises(pytest.skip.Exception, match="needs Chromium"):
        require_browser()


@pytest.mark.usefixtures("no_browser")
def test_where_a_browser_is_required_they_fail_without_one(monkeypatch):
    monkeypatch.setenv("VIDLAT_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="VIDLAT_REQUIRE_BROWSER"):
        require_browser()


def test_with_chromium_they_run(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert require_browser() == "/usr/bin/chromium"
