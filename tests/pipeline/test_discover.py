"""Which videos there are, and under which ids."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidlat.errors import InputError
from vidlat.pipeline.discover import _escape, discover_videos


@pytest.fixture(scope="module")
def mp4(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("source"), {"a.mp4": 2}) / "a.mp4"


@pytest.fixture
def place(mp4, tmp_path, monkeypatch):
    """place("b/c.mp4", ...) puts a real video there, below the current folder."""
    monkeypatch.chdir(tmp_path)

    def place(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(mp4, path)
        return tmp_path

    return place


def ids(*inputs):
    return [source.video_id for source in discover_videos([str(name) for name in inputs]).sources]


def test_ids_are_paths_below_the_folder_with_their_extension_in_order(place):
    root = place("v/b.mp4", "v/a.mp4", "v/a.avi", "v/deep/er/c d.MP4")
    assert ids("v") == ids(root / "v") == ids("./v/") == ["a.avi", "a.mp4", "b.mp4", "deep/er/c d.MP4"]


def test_a_file_that_two_inputs_reach_counts_once_under_its_first_id(place):
    place("v/a.mp4", "v/sub/b.mp4")
    assert ids("v", "v/sub", "v/a.mp4") == ["a.mp4", "sub/b.mp4"]
    assert ids("v/sub", "v") == ["a.mp4", "b.mp4"]


def test_sources_carry_what_tells_a_changed_file(place):
    root = place("v/a.mp4")
    (source,) = discover_videos(["v"]).sources
    status = (root / "v" / "a.mp4").stat()
    assert source.path == root / "v" / "a.mp4"
    assert (source.num_bytes, source.mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_file_is_known_by_its_name(place):
    place("v/a.mp4", "v/b.mp4")
    assert ids("v/a.mp4") == ["a.mp4"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("v/*.mp4", ["a.mp4"]),
        ("v/*/*.mp4", ["x/b.mp4", "y/b.mp4"]),
        ("v/**/*.mp4", ["a.mp4", "x/b.mp4", "y/b.mp4"]),
        ("v/[xy]", ["x/b.mp4", "y/b.mp4"]),
        ("*/x/?.mp4", ["v/x/b.mp4"]),
    ],
)
def test_pattern_gives_ids_below_its_fixed_part(place, pattern, expected):
    root = place("v/a.mp4", "v/x/b.mp4", "v/y/b.mp4")
    assert ids(pattern) == expected
    if not pattern.startswith("*"):
        assert ids(root / pattern) == expected


def test_name_with_signs_of_a_pattern_is_taken_as_it_is_where_it_exists(place):
    place("v/Cov (1)+[2].mp4")
    assert ids("v/Cov (1)+[2].mp4") == ids("v") == ["Cov (1)+[2].mp4"]


def test_several_inputs_are_joined_and_a_file_given_twice_counts_once(place):
    place("v/a.mp4", "w/b.mp4")
    assert ids("v", "w/b.mp4", "v/a.mp4", "w") == ["a.mp4", "b.mp4"]


def test_two_files_of_one_id_are_refused(place):
    place("v/a.mp4", "w/a.mp4")
    with pytest.raises(InputError, match=r"v/a\.mp4 and .*w/a\.mp4 would both be video 'a\.mp4'"):
        discover_videos(["v", "w"])


def test_hidden_files_are_passed_over_and_other_files_counted(place):
    root = place("v/a.mp4", "v/.b.mp4", "v/.git/c.mp4", "v/.DS_Store")
    (root / "v" / "notes.txt").write_text("no video")
    (root / "v" / "empty").write_bytes(b"")
    found = discover_videos(["v"])
    assert [source.video_id for source in found.sources] == ["a.mp4"]
    assert found.num_ignored == 2


def test_file_named_like_a_video_stays_so_that_its_failure_is_seen(place):
    root = place("v/a.mp4")
    (root / "v" / "broken.avi").write_text("no video")
    assert ids("v") == ["a.mp4", "broken.avi"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes only there")
def test_bytes_that_are_no_text_are_escaped_and_the_file_still_opens(place):
    root = place("v/a.mp4")
    path = root / "v" / os.fsdecode(b"100%\xff.mp4")
    try:
        (root / "v" / "a.mp4").rename(path)
    except OSError:
        pytest.skip("this file system takes no such name")
    (source,) = discover_videos(["v"]).sources
    assert source.video_id == "100%25%FF.mp4"
    assert source.path.read_bytes()


@given(name=st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_escaped_names_are_plain_text_and_tell_undecodable_names_apart(name):
    text = os.fsdecode(name)
    escaped = _escape(text)
    escaped.encode()  # would raise for a byte that is no text
    if escaped == text:
        return
    plain = bytearray()
    rest = escaped.encode()
    while rest:
        plain += bytes.fromhex(rest[1:3].decode()) if rest[:1] == b"%" else rest[:1]
        rest = rest[3:] if rest[:1] == b"%" else rest[1:]
    assert bytes(plain) == name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.timeout(20)
def test_pipe_never_hangs_the_search(place):
    root = place("v/a.mp4")
    os.mkfifo(root / "v" / "pipe.mp4")
    os.mkfifo(root / "v" / "pipe")
    assert ids("v") == ids("v/*") == ["a.mp4"]
    with pytest.raises(InputError, match="no video"):
        discover_videos(["v/pipe.mp4"])


def test_symlinks_to_files_count_and_loops_do_not_hang(place):
    root = place("v/a.mp4")
    (root / "v" / "link.mp4").symlink_to("a.mp4")
    (root / "v" / "loop").symlink_to(root / "v", target_is_directory=True)
    (root / "v" / "self.mp4").symlink_to("self.mp4")
    (root / "v" / "dangling.mp4").symlink_to("nowhere")
    found = discover_videos(["v"])
    assert [source.video_id for source in found.sources] == ["a.mp4", "link.mp4"]
    assert found.num_ignored == 2


@pytest.mark.parametrize(
    ("given_input", "message"),
    [
        ("missing", "missing: no such file or folder"),
        ("missing/*.mp4", "matches nothing"),
        ("empty", r"no video in empty \(0 other files\)"),
        ("texts", r"no video in texts \(2 other files\)"),
        ("texts/a.txt", "no video"),
    ],
)
def test_input_without_a_video_is_refused_with_one_line(tmp_path, monkeypatch, given_input, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("texts").mkdir()
    for name in ("a.txt", "b.txt"):
        (Path("texts") / name).write_text("no video")
    with pytest.raises(InputError, match=message) as error:
        discover_videos([given_input])
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_named_like_a_video_stays_and_another_is_ignored(place):
    root = place("v/a.mp4", "v/secret.mp4", "v/secret")
    for name in ("secret.mp4", "secret"):
        (root / "v" / name).chmod(0)
    found = discover_videos(["v"])
    assert [source.video_id for source in found.sources] == ["a.mp4", "secret.mp4"]
    assert found.num_ignored == 1


def test_folder_that_cannot_be_listed_is_refused(place, monkeypatch):
    place("v/a.mp4", "v/locked/b.mp4")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"locked: cannot be listed \(Permission denied\)"):
        discover_videos(["v"])
