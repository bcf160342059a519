"""No file, however it was changed, ends in anything but frames or a refusal; fuzz_readers has long runs."""

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.video.fuzz_readers import SEEDS, mutate, reading


@pytest.fixture(scope="module")
def reader():
    with reading() as reader:
        yield reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


@pytest.mark.parametrize("name", SEEDS)
def test_real_file_is_read(name, reader, folder):
    path = folder / name
    path.write_bytes(SEEDS[name]())
    assert reader.read(path) in ("read", "warned")


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_file_is_read_or_refused(name, reader, folder):
    content = SEEDS[name]()

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def is_read_or_refused(rng):
        path = folder / f"fuzzed-{name}"
        path.write_bytes(mutate(content, rng))
        outcome = reader.read(path)
        assert "\n" not in outcome, outcome

    is_read_or_refused()


def test_a_process_that_dies_is_told_of_and_started_again(reader, folder):
    path = folder / "a.npy"
    path.write_bytes(SEEDS["a.npy"]())
    reader.read(path)
    reader._process.kill()
    assert reader.read(path).startswith("died\nwith -9")
    assert reader.read(path) == "read"
