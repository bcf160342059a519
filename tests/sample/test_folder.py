"""A folder of samples tells how they were drawn, and is continued, never mixed."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import av
import numpy as np
import pytest
import torch
from PIL import Image

import vidlat
from tests.thorough import some_of
from tests.train.toys import build_small
from vidlat.config import SampleConfig
from vidlat.errors import InputError
from vidlat.sample import videos
from vidlat.sample.folder import SAMPLES, Sample, continue_samples, read_samples
from vidlat.sample.videos import sample_videos
from vidlat.train.runs.run_folder import load_run


class GrayVAE:
    """Decodes latents to frames as bright as the latents of their own stack are on the mean."""

    device = torch.device("cpu")
    weights_hash = "d" * 64

    def decode(self, latents, num_frames):
        bright = latents.mean((1, 3, 4)).sigmoid()
        bright = bright.repeat_interleave(4, dim=1)[:, None, :num_frames, None, None]
        return bright.expand(-1, -1, -1, 8, 8)


@pytest.fixture
def draw(make_trainer, tmp_path, monkeypatch):
    """Draw samples of a run of two steps into tmp_path / "out", and return their names."""
    list(make_trainer(steps=2).steps())
    vae = GrayVAE()
    monkeypatch.setattr(videos, "load_vae_of", lambda *_, **__: vae)
    trained = load_run(tmp_path / "run", build_model=build_small)
    monkeypatch.setattr(videos, "load_model", lambda *_, **__: trained)

    def names(most=None, out="out", weights_hash=GrayVAE.weights_hash, **settings):
        vae.weights_hash = weights_hash
        values = {"num": 2, "steps": 2, "format": "npy"} | settings
        paths = sample_videos(tmp_path / "run", tmp_path / out, SampleConfig(**values))
        found = [path.name for path in islice(paths, most)]
        paths.close()
        return found

    return names


def test_it_tells_how_its_samples_were_drawn(draw, tmp_path):
    draw(seed=3)
    folder = read_samples(tmp_path / "out")
    assert [sample.seed for sample in folder.samples.values()] == [3, 4]
    assert (folder.drawn["steps"], folder.drawn["step"], folder.drawn["frames"]) == (2, 2, 8)
    assert folder.seconds_per_sample > 0
    first = json.loads((tmp_path / "out" / SAMPLES).read_text().splitlines()[0])
    del first["drawn"]
    vae = load_run(tmp_path / "run", build_model=build_small).run.schema.vae_name
    assert first == {
        "vidlat_version": vidlat.__version__,
        "run": "run",
        "checkpoint": "last",
        "average_length": 0.0,
        "vae": vae,
    }


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_video_tells_it_too(suffix, draw, tmp_path):
    draw(num=1, seed=3, format=suffix)
    path = tmp_path / "out" / f"sample-0003.{suffix}"
    if suffix == "mp4":
        with av.open(str(path)) as container:
            comment = container.metadata["comment"]
    else:
        with Image.open(path) as picture:
            comment = picture.info["comment"]
    told, first = json.loads(comment), (tmp_path / "out" / SAMPLES).read_text().splitlines()[0]
    assert (told["drawn"].pop("seed"), told["drawn"]["condition"]) == (3, [])
    assert told == json.loads(first)


def test_what_is_there_is_not_drawn_again(draw, tmp_path):
    draw(num=4, out="whole")
    assert draw(num=4, most=2) == ["sample-0000.npy", "sample-0001.npy"]
    (tmp_path / "out" / "sample-0000.npy").unlink()
    kept = tmp_path / "out" / "sample-0001.npy"
    np.save(kept, np.full((8, 8, 8), 7, np.uint8))  # to be seen if it is drawn again
    assert len(draw(num=4)) == 4
    assert (np.load(kept) == 7).all()
    for name in ("sample-0000.npy", "sample-0002.npy", "sample-0003.npy"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(read_samples(tmp_path / "out").samples) == 4


def test_half_a_line_does_not_count_and_nothing_else_is_lost(draw, tmp_path):
    draw(num=3)
    path = tmp_path / "out" / SAMPLES
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        assert list(read_samples(tmp_path / "out").samples) == ["sample-0000.npy", "sample-0001.npy"]
    draw(num=4)  # after all of the last line but its end
    assert sorted(read_samples(tmp_path / "out").samples) == [
        f"sample-000{number}.npy" for number in range(4)
    ]


def test_processes_that_add_at_once_lose_nothing(draw, tmp_path):
    out = tmp_path / "out"
    draw(num=1)
    sample = read_samples(out).samples["sample-0000.npy"]
    description = {"drawn": read_samples(out).drawn}
    one, other = (continue_samples(out, description, {}) for _ in range(2))
    one.add("sample-0001.npy", sample)
    continue_samples(out, description, {})
    other.add("sample-0002.npy", sample)
    with (out / SAMPLES).open("ab") as file:
        file.write(b'{"name": "sample-00' + 70_000 * b"0")  # by a third one, which is killed
    one.add("sample-0003.npy", sample)
    assert list(read_samples(out).samples) == [f"sample-000{number}.npy" for number in range(4)]


@pytest.mark.parametrize("written", [b"", b"{", b'{"vidlat_version": "0.1.0", "drawn": {'])
def test_a_folder_is_started_again_whose_first_line_was_not_written(draw, tmp_path, written):
    draw(num=1)
    (tmp_path / "out" / "sample-0000.npy").unlink()
    (tmp_path / "out" / SAMPLES).write_bytes(written)
    draw(num=1)
    assert list(read_samples(tmp_path / "out").samples) == ["sample-0000.npy"]


def test_processes_that_start_a_folder_at_once_agree(tmp_path):
    description = {"drawn": {"steps": 2}}
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: continue_samples(tmp_path, description, {}), range(8)))
    for number, folder in enumerate(folders):
        folder.add(f"{number}.npy", Sample(seed=number))
    assert len(read_samples(tmp_path).samples) == 8


def test_of_processes_that_start_a_folder_at_once_in_other_ways_one_goes_on(tmp_path):
    def start(steps):
        try:
            return continue_samples(tmp_path, {"drawn": {"steps": steps}}, {}).drawn["steps"]
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(start, range(8)))
    (started,) = (outcome for outcome in outcomes if isinstance(outcome, int))
    assert read_samples(tmp_path).drawn == {"steps": started}
    assert sum("drawn otherwise (steps differs" in str(outcome) for outcome in outcomes) == 7


def test_each_sample_adds_a_line_and_rewrites_none(draw, tmp_path):
    path, before = tmp_path / "out" / SAMPLES, b""
    for number in range(1, 6):
        draw(num=6, most=number)
        after = path.read_bytes()
        assert after.startswith(before)
        assert after.count(b"\n") == 1 + number
        before = after
    inode = path.stat().st_ino
    folder = read_samples(tmp_path / "out")
    folder.add("sample-0009.npy", folder.samples["sample-0004.npy"])
    assert path.stat().st_ino == inode
    assert len(path.read_bytes()) - len(after) < 200


def test_of_two_lines_about_a_sample_the_last_holds(draw, tmp_path):
    draw(num=1)
    folder = read_samples(tmp_path / "out")
    folder.add("sample-0000.npy", Sample(seed=0, condition=("view=a4c",)))
    assert read_samples(tmp_path / "out").samples["sample-0000.npy"].condition == ("view=a4c",)


def test_a_folder_of_before_is_not_continued(draw, tmp_path):
    draw(num=1)
    (tmp_path / "out" / SAMPLES).rename(tmp_path / "out" / "samples.json")
    with pytest.raises(InputError, match=r"holds sample-0000.npy, and no samples.jsonl that tells how"):
        draw(num=1)


def test_other_samples_are_refused(draw, tmp_path):
    draw()
    with pytest.raises(InputError, match=r"drawn otherwise \(steps differs; steps: got 3, there 2\)"):
        draw(steps=3)
    with pytest.raises(InputError, match=r"drawn otherwise \(vae_hash differs; "):
        draw(weights_hash="e" * 64)
    assert read_samples(tmp_path / "out").drawn["steps"] == 2


def test_a_sample_of_another_condition_is_refused(draw, tmp_path):
    draw()
    path = tmp_path / "out" / SAMPLES
    text = path.read_text()
    assert text.count('"condition": []') == 3
    path.write_text('"condition": ["view=a4c"]'.join(text.rsplit('"condition": []', 1)))
    with pytest.raises(InputError, match=r"sample-0001.npy with condition 'view=a4c'.* with none"):
        draw()


def test_samples_that_nothing_tells_of_are_refused(draw, tmp_path):
    draw()
    (tmp_path / "out" / SAMPLES).write_text('{"drawn": ')  # half a line tells nothing
    with pytest.raises(InputError, match=r"sample-0000.npy, and no samples.jsonl"):
        draw()
    (tmp_path / "out" / SAMPLES).unlink()
    with pytest.raises(InputError, match=r"sample-0000.npy, and no samples.jsonl"):
        draw()


@pytest.mark.parametrize(
    "text", some_of(["{\n", '{"drawn": \n', "[]\n", "{}\n", '{"drawn": {}}\n{"seed": -1}\n', "\0\n"])
)
def test_a_damaged_description_is_refused_in_one_line(text, draw, tmp_path):
    draw()
    (tmp_path / "out" / SAMPLES).write_text(text)
    message = r"samples.jsonl: cannot be read \(.*\); to draw, remove it and the samples beside it"
    with pytest.raises(InputError, match=message) as error:
        draw()
    assert "\n" not in str(error.value)
    for path in (tmp_path / "out").glob("sample*"):  # as it says
        path.unlink()
    assert len(draw()) == 2


def test_a_damaged_line_is_named(draw, tmp_path):
    draw()
    path = tmp_path / "out" / SAMPLES
    path.write_bytes(path.read_bytes().replace(b'"seed": 1', b'"seed": x'))
    with pytest.raises(InputError, match=r"samples.jsonl: cannot be read \(line 3: Expecting value"):
        draw()


def test_a_damaged_sample_is_named(draw, tmp_path):
    draw()
    (tmp_path / "out" / "sample-0001.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"sample-0001.npy: cannot be read: .*; remove it"):
        draw()
