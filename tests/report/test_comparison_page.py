"""The page of a comparison has the figures of its source, escapes what it is told, and stays small."""

from dataclasses import replace

import pytest

from tests.report.html import Page
from tests.report.made import comparison_events
from vidlat.errors import InputError
from vidlat.evaluate.comparison import Comparison
from vidlat.report import comparison as page
from vidlat.report.comparison import report_comparison

CLIPS = {f"clip {number}.mp4": 30.0 + number for number in range(8)}
PSNRS = {"tiny stack 4": CLIPS, "tiny-16 stack 4": {clip: psnr + 5 for clip, psnr in CLIPS.items()}}


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """Events of eight clips, whose pictures no test changes."""
    return list(comparison_events(tmp_path_factory.mktemp("out"), PSNRS, num_frames=2))


def test_figures_are_those_of_the_comparison(events, tmp_path):
    read = Page(report_comparison(events, tmp_path / "r.html"))
    rows = read.rows("Means over the clips")
    assert len(rows) == 2
    for number, compared in enumerate(Comparison.of(events).candidates, 1):
        row = rows[str(number)]
        assert row["setting"] == compared.candidate.name
        assert row["PSNR dB"].split()[0] == f"{compared.summary.psnr:.2f}"
        assert row["values/px"].split()[0] == f"{compared.candidate.values_per_pixel:.4f}"
    assert "★" in rows["2"]["PSNR dB"]
    assert "★" not in rows["1"]["PSNR dB"]
    assert "★" in rows["1"]["values/px"]
    clips = read.rows("PSNR in dB of each clip")
    assert {clip: float(row["no. 1"]) for clip, row in clips.items()} == CLIPS
    assert read.rows("Left out")["combination"]["name"] == "tiny stack 6"
    assert "Cut short" not in read.text


def test_worst_and_best_clips_move_and_others_are_told_of(events, tmp_path):
    read = Page(report_comparison(events, tmp_path / "r.html"))
    videos = [attributes for tag, attributes in read.tags if tag == "video"]
    assert [video["aria-label"] for video in videos] == [
        f"clip {number}.mp4" for number in (0, 1, 2, 7, 6, 5)
    ]
    assert all(video["src"].startswith("data:video/mp4;base64,") for video in videos)
    assert "autoplay" not in str(videos)
    assert "2 other clips can be seen in the folder of the comparison" in read.text


def test_a_comparison_that_was_cut_short_says_so(events, tmp_path):
    cut_short = [replace(event, num_clips=20) for event in events]
    assert "8 of 20 clips compared" in Page(report_comparison(cut_short, tmp_path / "r.html")).text


def test_pictures_that_take_too_much_room_are_left_out_and_told_of(events, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 600)
    read = Page(report_comparison(events, tmp_path / "r.html"))
    assert read.count("video") == 0
    assert "8 other clips can be seen in the folder of the comparison, 6 of them because they" in read.text


def test_pictures_that_are_gone_are_left_out(tmp_path):
    events = list(comparison_events(tmp_path / "out", {"tiny": {"a": 30.0, "b": 31.0}}, num_frames=2))
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    assert Page(report_comparison(events, tmp_path / "r.html")).count("video") == 0


def test_names_are_texts_and_nothing_else(tmp_path):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b\ud800'
    events = list(
        comparison_events(tmp_path / "out", {f"tiny {evil}": {evil: 30.0, "b": 31.0}}, num_frames=2)
    )
    read = Page(report_comparison(events, tmp_path / "r.html"))
    assert read.count("script") == 1
    assert not [image for tag, image in read.tags if tag == "img" and "onerror" in image]
    assert "<script>alert(1)</script>" in read.text
    assert r"\x1b\ud800" in read.text


def test_nothing_outside_the_page_is_named_but_by_its_own_places(events, tmp_path):
    read = Page(report_comparison(events, tmp_path / "r.html"))
    links = [
        value for _, attributes in read.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    places = {attributes.get("id") for _, attributes in read.tags}
    assert {link[1:] for link in links if link.startswith("#")} <= places
    assert "url(" not in (tmp_path / "r.html").read_text()


def test_nothing_measured_is_refused_and_leaves_no_file(events, tmp_path):
    with pytest.raises(InputError, match="no clip has been compared with all settings"):
        report_comparison(events[:1], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_colour_is_a_vae_in_all_plots(tmp_path):
    psnrs = {"tiny stack 4": 30.0, "tiny stack 16": 31.0, "maisi stack 4": 32.0, "maisi stack 16": 33.0}
    events = list(
        comparison_events(tmp_path / "out", {name: {"a.mp4": psnr} for name, psnr in psnrs.items()})
    )
    read = Page(report_comparison(events, tmp_path / "r.html"))
    looks = [attributes.get("class", "").split() for _, attributes in read.tags]
    for kind in ("dot", "box"):
        colours = [colour for look in looks if look[:1] == [kind] for colour in look[1:]]
        assert colours.count("s0") >= 8
        assert colours.count("s0") == colours.count("s1")
        assert set(colours) == {"s0", "s1"}
