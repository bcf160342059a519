"""Two encodes at once: one writes, the other names it. Ctrl-C: no process is left behind."""

import os
import random
import re
import signal
import socket
from contextlib import ExitStack
from itertools import count

import pytest

from tests.survival.encode_phases import wait_for_phase
from tests.survival.encode_process import encoding, make_videos
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("survival") / "v", 24)


@pytest.fixture
def start(videos, tmp_path):
    """start(): another encode of the same videos into the same cache, killed when the test ends."""
    with ExitStack() as processes:
        scratch = (tmp_path / "scratch" / str(number) for number in count())
        yield lambda: processes.enter_context(encoding(videos, tmp_path / "l.zarr", next(scratch)))


@pytest.fixture(scope="module")
def checksums(videos, tmp_path_factory):
    """The checksums after an undisturbed encode."""
    folder = tmp_path_factory.mktemp("survival")
    with encoding(videos, folder / "l.zarr", folder / "scratch") as encode:
        assert encode.wait() == 0, encode.err
    return checksums_of(encode.cache)


def checksums_of(path):
    return {video_id: record.latents.crc32c for video_id, record in open_cache(path).records().items()}


def is_one_line_naming(error, encode):
    """Whether a refusal names the command, the host and the process of this encode."""
    host = re.escape(socket.gethostname())
    pattern = rf"Error: \S+: in use by `vidlat encode` on {host}, process {encode.pid}, since .*\n"
    return re.fullmatch(pattern, error) is not None


def test_second_encode_is_refused_naming_the_first_which_continues(start, checksums):
    first = start()
    assert wait_for_phase(first, "lease taken")
    first.freeze()  # or it may end before the second looks
    second = start()
    assert second.wait() == 1
    first.thaw()
    assert is_one_line_naming(second.err, first), second.err
    assert first.wait() == 0, first.err
    assert checksums_of(first.cache) == checksums
    assert list(verify_cache(first.cache)) == []


def test_one_of_two_encodes_that_start_at_once_creates_the_cache(start, checksums):
    encodes = [start(), start()]
    codes = [encode.wait() for encode in encodes]
    assert sorted(codes) == [0, 1], [encode.err for encode in encodes]
    winner, loser = (encodes[codes.index(code)] for code in (0, 1))
    # Where the winner had ended when the loser's workers were up, it was a change since the plan.
    ended = re.fullmatch(r"Error: \S+: changed while this encode was planned.*\n", loser.err)
    assert ended or is_one_line_naming(loser.err, winner), loser.err
    assert checksums_of(winner.cache) == checksums
    assert list(verify_cache(winner.cache)) == []


def test_encode_continues_at_once_after_another_was_killed(start, checksums):
    first = start()
    assert wait_for_phase(first, "commit")
    os.kill(first.pid, signal.SIGKILL)
    first.driver.wait()
    num_done = len(checksums_of(first.cache))
    assert 0 < num_done < len(checksums)
    second = start()
    assert second.wait() == 0, second.err
    assert f"{len(checksums) - num_done} videos to encode, {num_done} already done" in second.out
    assert checksums_of(first.cache) == checksums


PHASES = ("torch loading", "workers started", "lease taken", "scratch", "root grown", "commit")


@pytest.mark.parametrize("whom", ["driver", "group"])
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_ends_an_encode_in_one_line_and_leaves_no_process_behind(phase, whom, start, checksums):
    encode = start()
    assert wait_for_phase(encode, phase)
    for _ in range(random.Random(f"{phase} {whom}").randrange(1000)):
        os.sched_yield()
    assert encode.is_running()
    (os.killpg if whom == "group" else os.kill)(encode.pid, signal.SIGINT)
    assert encode.wait() == 130, encode.err
    assert encode.err == "Interrupted.\n"
    assert "Traceback" not in encode.out
    encode.wait_for_all()
    if encode.cache.exists():
        assert not (encode.cache / "videos/records/lease").exists()
        assert checksums_of(encode.cache).items() <= checksums.items()
        assert {problem.kind for problem in verify_cache(encode.cache)} <= {"leftover"}
