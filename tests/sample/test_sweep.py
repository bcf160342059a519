"""A sweep draws each value of a condition at the same seeds, and shows them in a grid."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipeline.opened import frames_of
from tests.sample.test_folder import GrayVAE
from tests.train.toys import build_small
from vidlat.commands import sample as commands
from vidlat.config import SampleConfig
from vidlat.errors import ConfigError, InputError
from vidlat.sample import pictures, videos
from vidlat.sample.folder import Sample, read_samples
from vidlat.sample.pictures import CONTACT_SHEET, MOVING, STILL, SweepGrid, in_sweep_order
from vidlat.sample.videos import sample_videos
from vidlat.train.runs.run_folder import load_run
from vidlat.types import Annotation


class LargerVAE(GrayVAE):
    """Decodes to frames of the size of the cache's."""

    def decode(self, latents, num_frames):
        return super().decode(latents, num_frames)[..., :1, :1].expand(-1, -1, -1, 16, 16)


GRADES = ("0", "1", "a/b", "3.0")


@pytest.fixture
def draw(make_cache, make_trainer, tmp_path, monkeypatch):
    """Draw samples of a run with the condition grade, and return the names of their files."""
    names = [f"{number}.mp4" for number in range(8)]
    cache, _ = make_cache(dict.fromkeys(names, 8), name="grades.zarr")
    table = {name: Annotation("", {"grade": GRADES[n % 4], "ef": str(n)}) for n, name in enumerate(names)}
    settings = {"steps": 2, "condition": ("grade", "ef:float"), "validation_fraction": 0.0}
    list(make_trainer(cache=cache, labels=table, **settings).steps())
    trained = load_run(tmp_path / "run", build_model=build_small)
    with torch.no_grad():  # so that classes differ after two steps
        for parameter in trained.model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(videos, "load_vae_of", lambda *_, **__: LargerVAE())
    monkeypatch.setattr(videos, "load_model", lambda *_, **__: trained)

    def names_of(out="out", **settings):
        values = {"num": 2, "steps": 2, "format": "npy"} | settings
        paths = sample_videos(tmp_path / "run", tmp_path / out, SampleConfig(**values))
        return [path.name for path in paths]

    return names_of


def test_each_value_is_drawn_at_the_same_seeds(draw, tmp_path):
    names = draw(sweep="grade=0,3.00,a/b", seed=5)
    assert names == [
        f"sample-grade={value}-000{seed}.npy" for value in ("0", "3", "a%2Fb") for seed in (5, 6)
    ]
    samples = read_samples(tmp_path / "out").samples
    assert samples["sample-grade=a%2Fb-0006.npy"].condition == ("grade=a/b",)
    for value in ("0", "3"):
        draw(out=value, condition=(f"grade={value}",), seed=5)
        for seed in (5, 6):
            swept = (tmp_path / "out" / f"sample-grade={value}-000{seed}.npy").read_bytes()
            assert swept == (tmp_path / value / f"sample-000{seed}.npy").read_bytes()


def test_a_sweep_is_continued_with_more_values_and_seeds_and_never_mixed(draw, tmp_path):
    draw(sweep="grade=0,1", condition=("ef=3",))
    kept = tmp_path / "out" / "sample-grade=1-0000.npy"
    np.save(kept, np.full((8, 16, 16), 7, np.uint8))  # to be seen if it is drawn again
    assert len(draw(sweep="grade=0,1,3", num=3, condition=("ef=3.0",))) == 9
    assert (np.load(kept) == 7).all()
    for other, differing in (
        ({"sweep": "ef=1,2"}, "condition, sweep differ"),
        ({"condition": ("ef=3",)}, "sweep differs"),
        ({"sweep": "grade=0,1"}, "condition differs"),
    ):
        with pytest.raises(InputError, match=rf"drawn otherwise \({differing}"):
            draw(**other)
    assert len(read_samples(tmp_path / "out").samples) == 9


def test_the_grid_has_a_row_a_value_and_a_column_a_seed(tmp_path):
    samples = {
        f"{value}-{seed}": Sample(seed=seed, condition=("view=x", f"grade={value}"))
        for value in "ab"
        for seed in range(3)
    }
    grid = SweepGrid(samples, "grade", fps=10)
    for number, name in enumerate(samples):
        if name != "b-1":  # it is missing: a copy, say
            grid.add(name, np.full((5, 128, 128), 40 * number + 20, np.uint8))
    grid.write(tmp_path)
    expected = [[20, 60, 100], [140, 0, 220]]
    still = np.asarray(Image.open(tmp_path / STILL))
    moving = [frame.pixels for frame in frames_of(tmp_path / MOVING)]
    assert len(moving) == 5
    for row, values in enumerate(expected):
        for column, value in enumerate(values):
            place = 12 + 290 * row + 150, 12 + 268 * column + 128
            assert still[place] == value
            assert abs(int(moving[2][place]) - value) <= 8


def test_a_grid_of_dark_samples_is_brighter_by_one_factor(tmp_path):
    levels = {"a-0": 40, "a-1": 80}
    samples = {name: Sample(seed=seed, condition=("grade=a",)) for seed, name in enumerate(levels)}
    grid = SweepGrid(samples, "grade", fps=10)
    for name, level in levels.items():
        grid.add(name, np.full((3, 128, 128), level, np.uint8))
    grid.write(tmp_path)
    for frame in (np.asarray(Image.open(tmp_path / STILL)), next(frames_of(tmp_path / MOVING)).pixels):
        shown = [int(frame[12 + 150, 12 + 268 * column + 128]) for column in range(2)]
        assert shown == pytest.approx([40 / 80 * 255, 255], abs=4)


def test_the_pictures_show_all_values_and_seeds_of_the_folder(draw, tmp_path):
    draw(sweep="ef=3,20", num=1)
    for name, level in (("sample-ef=3-0000.npy", 60), ("sample-ef=20-0000.npy", 210)):
        np.save(tmp_path / "out" / name, np.full((8, 16, 16), level, np.uint8))
    draw(sweep="ef=7", num=2, seed=0)
    still = np.asarray(Image.open(tmp_path / "out" / STILL))
    level = lambda row, column: still[12 + 290 * row + 150, 12 + 268 * column + 128]  # noqa: E731
    assert still.shape == (12 + 290 * 3, 12 + 268 * 2)
    assert level(1, 0) == 60  # below the value of this call
    assert level(2, 0) == 210
    assert level(1, 1) == level(2, 1) == 0  # not drawn at this seed
    (tmp_path / "out" / "sample-ef=3-0000.npy").unlink()
    assert draw(sweep="ef=7", num=2) == ["sample-ef=7-0000.npy", "sample-ef=7-0001.npy"]
    with Image.open(tmp_path / "out" / STILL) as picture:
        assert picture.height == 12 + 290 * 2  # a removed sample has no row


def test_what_has_no_place_in_the_grid_is_told_also_of_earlier_calls(draw, tmp_path, monkeypatch, capsys):
    draw(sweep="ef=3", num=3)
    draw(sweep="ef=7", num=1)
    monkeypatch.setattr(pictures, "MAX_COLUMNS", 2)
    monkeypatch.setattr(commands, "MAX_SWEPT", 1)
    commands._report_pictures(tmp_path / "out", SampleConfig(sweep="ef=7", num=1), num_written=1)
    told = " ".join(capsys.readouterr().out.split())
    assert "contact sheet ->" in told
    assert "a column a seed (the first 1 values and the first 2 seeds) ->" in told


def test_values_are_in_the_order_given_then_those_of_before_numbers_by_size_and_first():
    made = {value: Sample(seed=0, condition=(f"ef={value}",)) for value in ("b", "10", "9", "-1.5", "a", "5")}
    given = {value: made.pop(value) for value in ("b", "5", "10")}
    assert list(in_sweep_order(given, {}, "ef")) == ["b", "5", "10"]
    assert list(in_sweep_order(given, made | given, "ef")) == ["b", "5", "10", "-1.5", "9", "a"]
    other = {"x": Sample(seed=0, condition=("grade=1",))}
    assert list(in_sweep_order(given, other, "ef")) == ["b", "5", "10"]


def test_a_grid_of_many_seeds_shows_the_lowest(draw, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_COLUMNS", 2)
    draw(sweep="grade=0,1", num=3)
    with Image.open(tmp_path / "out" / STILL) as picture:
        assert picture.width == 12 + 2 * 268
    assert (tmp_path / "out" / CONTACT_SHEET).is_file()


def test_a_grid_is_written_of_what_is_drawn_when_it_is_interrupted(draw, tmp_path, monkeypatch):
    decoded = iter(range(100))

    def decode_one(*arguments):
        if next(decoded) == 3:
            raise KeyboardInterrupt
        return np.zeros((8, 8, 8), np.float32)

    monkeypatch.setattr(videos, "decode_latents", decode_one)
    with pytest.raises(KeyboardInterrupt):
        draw(sweep="grade=0,1")
    assert (tmp_path / "out" / STILL).is_file()
    assert len(read_samples(tmp_path / "out").samples) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sweep": "grade"}, "sweep: got 'grade'; expected NAME=VALUE,VALUE... with 1 to 16 values"),
        ({"sweep": "grade="}, "with 1 to 16 values"),
        ({"sweep": "grade=1,,2"}, "with 1 to 16 values"),
        ({"sweep": f"ef={','.join(map(str, range(17)))}"}, "with 1 to 16 values"),
        ({"sweep": "grade=1,0", "condition": ("grade=1",)}, "sweep: grade is given by condition too"),
        ({"sweep": "grade=3,3.0"}, "sweep: grade=3 is given twice; keep one"),
        ({"sweep": "ef=5,5e0"}, "sweep: ef=5 is given twice; keep one"),
        (
            {"condition": ("ef=1e300",)},
            "got ef='1e300'; expected a number, such as the run was trained with: 0",
        ),
        ({"sweep": "age=3,4"}, "sweep: got 'age=3'; expected grade=..., ef=..."),
        ({"sweep": "ef=1,high"}, "sweep: got ef='high'; expected a number, .*: 0 to 7$"),
        (
            {"condition": ("ef=high",)},
            "got ef='high'; expected a number, such as the run was trained with: 0",
        ),
        ({"sweep": "grade=0,9"}, r"got grade=9; expected a class of the training videos: .* \(2\)"),
    ],
)
def test_a_wrong_sweep_is_refused(draw, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        draw(**settings)
    assert not (tmp_path / "out").exists()


def test_values_beyond_the_training_are_told_once(draw, capsys):
    draw(sweep="ef=7,70,80", num=3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" lies ")[0] for line in lines] == ["ef=70", "ef=80"]
