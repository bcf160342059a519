"""A comparison has the figures that encoding and evaluating the clips with each setting would have."""

import json
import math
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from tests.thorough import some_of
from vidlat.config import CompareConfig
from vidlat.errors import ConfigError, InputError, TimingError, WeightsError
from vidlat.evaluate import clip as measuring
from vidlat.evaluate.candidates import choose_clips, load_candidates
from vidlat.evaluate.comparison import Comparison, compare_videos
from vidlat.evaluate.reconstruction import Evaluation, evaluate_videos
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.types import WHOLE, Annotation, InputVideo, Source
from vidlat.video.reader import read_prepared

LENGTHS = {"a.mp4": 9, "b.mp4": 1, "deep/c.mp4": 6}


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture
def settings(small_vae):
    def make(**changes):
        return CompareConfig(**{"vae": (str(small_vae),), "size": 16, "batch": 3, "device": "cpu"} | changes)

    return make


def collect(videos, out, settings):
    return Comparison.of(compare_videos([videos], out, settings))


@pytest.mark.parametrize(
    "timing",
    some_of([{}, {"stretch": 2, "overlap": 2}, {"stack": 8, "overlap": 4, "blend": "center"}]),
    ids=str,
)
def test_figures_are_those_of_an_encode_and_its_evaluation(videos, settings, encode_here, tmp_path, timing):
    lists = {name: (value,) for name, value in timing.items()}
    (compared,) = collect(videos, tmp_path / "out", settings(**lists)).candidates
    cache = encode_here(videos, tmp_path / "l.zarr", **timing)
    evaluation = Evaluation.of(evaluate_videos(cache, [videos], device="cpu"))
    assert [clip.video_id for clip in compared.clips] == sorted(LENGTHS)
    for ours, theirs in zip(compared.clips, evaluation.videos, strict=True):
        assert flat(ours) == pytest.approx(flat(theirs.vae), rel=1e-4, nan_ok=True)
    assert flat(compared.summary) == pytest.approx(flat(evaluation.summaries["vae"]), rel=1e-4, nan_ok=True)


def flat(quality):
    """All figures by name, NaN for none."""
    values = quality.to_dict()
    numbers = values | values.pop("motion") | {"video_id": 0, "criteria": 0}
    return {name: math.nan if value is None else value for name, value in numbers.items()}


def test_only_the_first_frames_count(videos, settings, tmp_path):
    (compared,) = collect(videos, tmp_path / "out", settings(frames=5)).candidates
    assert [clip.num_frames for clip in compared.clips] == [5, 1, 5]


def test_every_combination_that_makes_sense_runs_once(settings):
    found = load_candidates(
        settings(stack=(4, 8, 6, 4), stretch=(1, 2), overlap=(0, 4), blend=("average", "center"))
    )
    assert [candidate.name for candidate in found.vaes] == [
        f"small {timing}"
        for timing in (
            "stack 4",
            "stack 4 stretch 2",
            "stack 8",
            "stack 8 overlap 4",
            "stack 8 overlap 4 center",
            "stack 8 stretch 2",
            "stack 8 stretch 2 overlap 4",
            "stack 8 stretch 2 overlap 4 center",
        )
    ]
    reasons = {name.removeprefix("small "): str(error) for name, error in found.impossible.items()}
    assert reasons["stack 4 overlap 4"].startswith("overlap: got 4; expected less than the stack of 4")
    assert reasons["stack 6"].startswith("stack: got 6; expected a multiple of 4")
    assert reasons["stack 8 center"].startswith("blend: got center; it needs calls that share latent frames")
    networks = {id(vae._autoencoder.network) for vae in found.vaes.values()}
    assert len(networks) == 1  # in memory once


def test_blends_between_frames_count_only_where_there_is_something_between(settings):
    found = load_candidates(settings(stretch=(1, 2), stretch_by=("repeat", "linear")))
    names = [candidate.name.removeprefix("small ") for candidate in found.vaes]
    assert names == ["stack 4", "stack 4 stretch 2", "stack 4 stretch 2 linear"]


def test_equal_weights_count_once_and_names_tell_files_apart(settings, small_vae, tmp_path):
    same, broken = tmp_path / "small.safetensors", tmp_path / "broken.pt"
    same.write_bytes(small_vae.read_bytes())
    broken.write_bytes(b"nothing")
    found = load_candidates(settings(vae=(str(small_vae), str(same), str(broken), "tiny")))
    assert [candidate.name for candidate in found.vaes] == [f"{small_vae} stack 4", "tiny stack 4"]
    assert list(found.failed) == ["broken"]
    assert "cannot be read as weights" in str(found.failed["broken"])


def test_the_same_tensors_in_another_network_are_another_candidate(settings, kl_folder, tmp_path):
    shutil.copytree(kl_folder, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_num_groups": 1}))
    specs = (f"diffusers:{kl_folder}", f"diffusers:{tmp_path / 'other'}")
    found = load_candidates(settings(vae=specs))
    assert [candidate.name for candidate in found.vaes] == ["kl stack 4", "other stack 4"]


def test_two_decoders_of_one_encoder_are_two_candidates(settings, small_vae, other_decoder):
    found = load_candidates(settings(vae=(str(small_vae), str(other_decoder))))
    assert [candidate.name for candidate in found.vaes] == ["small stack 4", "other-decoder stack 4"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"stack": (6,)}, TimingError, r"^stack: got 6; expected a multiple of 4"),
        ({"vae": ("tiny", "tiny-16"), "device": "mps"}, ConfigError, r"^device: got 'mps'; expected cpu"),
        ({"stack": (6, 7)}, TimingError, r"^nothing is left to compare: small stack 6: stack: got 6"),
        ({"vae": ("missing.pt",)}, WeightsError, r"^no weights file at missing.pt"),
    ],
)
def test_one_line_says_why_nothing_is_left(settings, changes, error, message):
    with pytest.raises(error, match=message):
        load_candidates(settings(**changes))


def test_costs_are_those_of_a_long_video(settings):
    """Four channels of 4 x 4 positions for 16 x 16 pixels: a latent frame per frame is a quarter."""
    found = load_candidates(settings(stack=(4, 8), stretch=(1, 4), overlap=(0, 2)))
    costs = {candidate.name.removeprefix("small "): candidate for candidate in found.vaes}
    assert costs["stack 4"].values_per_pixel == 1 / 16
    assert costs["stack 4 stretch 4"].values_per_pixel == 1 / 4
    assert costs["stack 4 overlap 2"].values_per_pixel == 1 / 8
    assert costs["stack 8 overlap 2"].values_per_pixel == pytest.approx(2 / 6 / 4)
    # 16,000 means and as many standard deviations in float16, compressed to 0.8.
    assert costs["stack 4"].bytes_per_1000_frames == pytest.approx(16_000 * 4 * 0.8)


def clip(name, subject=""):
    return InputVideo(video_id=name, source=Source(name, 1, 1, "", WHOLE), annotation=Annotation(subject, {}))


def chosen(clips, num_clips):
    return [video.video_id for video in choose_clips(clips, num_clips)]


def test_clips_without_subjects_are_spread_over_the_sorted_ids():
    clips = [clip(f"{number:02d}.mp4") for number in range(11)]
    assert chosen(clips[::-1], 3) == ["00.mp4", "05.mp4", "10.mp4"]
    assert chosen(clips, 100) == [f"{number:02d}.mp4" for number in range(11)]


def test_every_subject_has_one_before_any_has_two():
    names = {"ann": "abcdefgh", "bob": "ij", "cyd": "k"}
    clips = [clip(name, subject) for subject, ids in names.items() for name in ids]
    assert chosen(clips, 2) == ["a", "k"]
    assert chosen(clips, 3) == ["a", "i", "k"]
    assert chosen(clips, 5) == ["a", "h", "i", "j", "k"]  # the others have no more
    assert chosen(clips, 6) == ["a", "e", "h", "i", "j", "k"]
    assert chosen(clips, 99) == list("abcdefghijk")


def test_a_still_clip_has_no_motion_and_an_unreadable_one_is_named(videos, settings, tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    np.save(folder / "still.npy", np.full((6, 20, 20), 90, np.uint8))
    (folder / "broken.mp4").write_bytes(b"")
    found = collect(folder, tmp_path / "out", settings(intensity="uint8"))
    assert found.clips == ["still.npy"]
    assert found.failed_clips == {"broken.mp4": "is an empty file: copy it again"}
    motion = found.candidates[0].summary.motion
    assert (motion.energy_inside, motion.energy_at_borders, motion.correlation) == (None, None, None)
    with pytest.raises(InputError, match=r"no clip can be compared: .*broken\.mp4: is an empty file"):
        collect(folder / "broken.mp4", tmp_path / "none", settings())


def test_a_setting_that_fails_on_a_clip_is_left_out_and_the_others_go_on(
    videos, settings, tmp_path, monkeypatch
):
    def to_stored(name, values):
        if values.shape[1] == 3:  # latent frames: nine frames, not stretched
            values = values * np.inf
        return real(name, values)

    real = measuring.to_stored
    monkeypatch.setattr(measuring, "to_stored", to_stored)
    found = collect(videos, tmp_path / "out", settings(stretch=(1, 4)))
    assert [compared.candidate.name for compared in found.candidates] == ["small stack 4 stretch 4"]
    assert found.clips == sorted(LENGTHS)
    assert "a.mp4: latent mean: " in found.failed_candidates["small stack 4"]


def test_where_it_was_cut_short_only_clips_count_that_all_settings_share(videos, settings, tmp_path):
    events = list(compare_videos([videos], tmp_path / "out", settings(stretch=(1, 2))))
    kinds = ["measured" if event.measurement else "shown" for event in events]
    assert kinds == ["measured", "measured", "shown"] * 3
    assert {(event.num_clips, event.num_candidates) for event in events} == {(3, 2)}
    whole = Comparison.of(events)
    assert (len(whole.candidates), whole.clips) == (2, sorted(LENGTHS))
    part = Comparison.of(events[:4])  # within the second clip
    assert (len(part.candidates), part.clips) == (2, ["a.mp4"])
    assert [compared.clips[0] for compared in part.candidates] == [
        compared.clips[0] for compared in whole.candidates
    ]
    start = Comparison.of(events[:1])
    assert (len(start.candidates), start.clips) == (1, ["a.mp4"])
    assert (Comparison.of([]).candidates, Comparison.of([]).clips) == ([], [])


def test_pictures_show_the_source_and_what_came_back(videos, settings, tmp_path):
    out, how = tmp_path / "out", settings(size=64)
    (compared,) = collect(videos, out, how).candidates
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == sorted(
        [DECODED_MARK, *(f"{name[:-4]}{suffix}" for name in LENGTHS for suffix in (".mp4", ".png"))]
    )
    with av.open(str(out / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 25
        shown = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]) / 255
    source = np.stack([frame.pixels for frame in read_prepared(videos / "a.mp4", WHOLE, how)])
    # Below a line of text; a pixel is a square of 16, of which the mean.
    tiles = (shown[:, 34:290, start : start + 256] for start in (12, 280))
    left, right = (tile.reshape(-1, 64, 4, 64, 4).mean((2, 4)) for tile in tiles)
    assert np.abs(left - source).max() < 9 / 255
    assert np.square(right - source).mean() == pytest.approx(compared.clips[0].mse, rel=0.05)
    assert discover_videos([str(tmp_path), str(videos)]).decoded == (str(out),)


def test_a_contact_sheet_shows_frames_in_a_row_from_where_the_source_moves_most(settings, tmp_path):
    grays = np.full(30, 120) + np.arange(30)
    grays[20:] += 100
    np.save(tmp_path / "v.npy", np.broadcast_to(grays[:, None, None], (30, 16, 16)).astype(np.uint8))
    collect(tmp_path / "v.npy", tmp_path / "out", settings(intensity="uint8"))
    with Image.open(tmp_path / "out" / "v.png") as image:
        pixels = np.asarray(image)[: 24 + 34 + 256]  # the first row, of the source
    shown = [int(gray) for gray in grays if (pixels == gray).all(-1).sum() == 256 * 256]
    start = grays.tolist().index(shown[0])
    assert shown == grays[start : start + 7].tolist()
    assert start <= 19 < start + 6


def test_out_must_not_hold_the_clips(videos, settings):
    with pytest.raises(InputError, match=r"holds the video 'a\.mp4' itself"):
        compare_videos([videos], videos, settings())
