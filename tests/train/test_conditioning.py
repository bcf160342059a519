"""Labels and numbers as features, and what a run does with them."""

import json
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.train.toys import random_posterior
from vidlat.documents import Fields
from vidlat.errors import ConfigError, InputError, TrainError
from vidlat.train.objectives.conditioning import ClassCondition, Conditions, by_value
from vidlat.train.objectives.noising import join_first_frames
from vidlat.train.runs.run_folder import read_run
from vidlat.types import Annotation

LABELS = [{"view": "a4c", "ef": "35"}, {"view": "plax", "ef": "65"}, {"view": "a4c"}, {"site": "x"}]
CONDITIONS = Conditions.plan(["view", "ef:float"], LABELS)

texts = st.text(min_size=1, max_size=5)


def test_a_class_is_one_hot_and_a_number_its_standard_score():
    assert CONDITIONS.num_features == 2 + 2
    assert CONDITIONS.encode({"view": "a4c", "ef": "65"}).tolist() == [1, 0, 1, 1]
    assert CONDITIONS.encode({"view": "plax", "ef": "50"}).tolist() == [0, 1, 1, 0]


def test_unknown_labels_are_zeros():
    assert not CONDITIONS.encode({}).any()
    assert CONDITIONS.encode({"ef": "35"}).tolist() == [0, 0, 1, -1]
    assert not CONDITIONS.encode_known({"view": "subcostal", "ef": "much"}).any()


@given(st.lists(st.fixed_dictionaries({"a": texts, "b": st.integers(-9, 9).map(str)})))
def test_different_labels_have_different_features_and_json_keeps_conditions(more):
    labels = [*more, {"a": "x", "b": "3"}, {"a": "y", "b": "4"}]
    conditions = Conditions.plan(["a", "b:float"], labels)
    document = json.loads(json.dumps({"conditions": conditions.to_list()}))
    again = Conditions.from_fields(Fields(document, "run").objects("conditions"))
    assert again == conditions
    encoded = {(by_value(video["a"]), video["b"]): tuple(conditions.encode(video)) for video in labels}
    assert len(set(encoded.values())) == len(encoded)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["view", "view:float"], "view is given twice"),
        (["ef:int"], "got 'ef:int'; expected NAME for classes, or NAME:float"),
        (["view:float"], "view: got 'a4c'; expected a number"),
        (["age"], "no training video has a label 'age'; they have ef, site, view"),
    ],
)
def test_impossible_conditions_are_refused_by_name(asked, message):
    with pytest.raises((ConfigError, TrainError), match=message):
        Conditions.plan(asked, LABELS)


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=1, max_value=99), st.integers(0, 3)
)
def test_classes_go_by_value(number, num_zeros):
    text = f"{number:f}"
    conditions = Conditions.plan(
        ["grade"], [{"grade": text}, {"grade": text + num_zeros * "0"}, {"grade": "x"}]
    )
    assert len(conditions.conditions[0].classes) == 2
    assert conditions.canonical([f"grade={text}0"]) == conditions.canonical([f"grade={text}"])
    assert Decimal(conditions.canonical([f"grade={text}"])[0].removeprefix("grade=")) == number


def test_three_is_one_class_and_a_text_is_as_it_is_written():
    conditions = Conditions.plan(["grade"], [{"grade": text} for text in ("3", "3.0", "3.00", "10", "1.50")])
    assert conditions.conditions[0].classes == ("1.5", "10", "3")
    assert np.array_equal(conditions.parse(["grade=3.0"]), conditions.encode({"grade": "3"}))
    assert conditions.known({"grade": "3.000"}) == {"grade": "3"}
    for other in ("03", "3.", "3e0", "30", "a.0", "-3", "0", "1_2"):
        assert by_value(other) == other
    assert [by_value(text) for text in ("-0", "-0.0", "+3", "+3.50")] == ["0", "0", "3", "3.5"]
    before = ClassCondition(name="grade", classes=("3", "3.0"))  # as two, in a run of before
    assert (before.encode("3"), before.encode("3.0"), before.encode("3.00")) == ([1, 0], [0, 1], [1, 0])


def test_an_example_of_each_condition_can_be_drawn():
    assert CONDITIONS.examples() == ["view=a4c", "ef=50"]
    assert CONDITIONS.parse(CONDITIONS.examples()).any()


def test_equal_conditions_of_a_sample_are_written_alike():
    assert CONDITIONS.canonical(["ef=35.0", "view=plax"]) == ("view=plax", "ef=35")
    assert CONDITIONS.canonical(["view=plax", "ef=35"]) == ("view=plax", "ef=35")
    for text in ("3.5e1", "+35", " 35", "035.0"):
        assert CONDITIONS.canonical([f"ef={text}"]) == ("ef=35",)
    assert CONDITIONS.canonical(["ef=-0.0"]) == ("ef=0",)
    with pytest.raises(ConfigError, match="ef: got '3_5'; expected a number"):
        CONDITIONS.canonical(["ef=3_5"])


def test_without_any_label_the_flag_for_a_table_is_named():
    with pytest.raises(TrainError, match="give a table with --labels"):
        Conditions.plan(["view"], [{}, {}])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["view=subcostal"], "got 'subcostal'; expected one of a4c, plax"),
        (["ef=much"], "ef: got 'much'; expected a number"),
        (["age=3"], "expected view=..., ef=..."),
        (["view"], "got 'view'"),
        (["ef=1", "ef=2"], "ef is given twice"),
    ],
)
def test_unknown_conditions_of_a_sample_are_refused_by_name(asked, message):
    with pytest.raises(ConfigError, match=message):
        CONDITIONS.parse(asked)


def test_conditions_of_a_sample_are_encoded_as_those_of_a_video():
    assert np.array_equal(
        CONDITIONS.parse(["ef=50", "view=plax"]), CONDITIONS.encode({"view": "plax", "ef": "50"})
    )
    assert not CONDITIONS.parse([]).any()
    with pytest.raises(ConfigError, match="trained without --condition"):
        Conditions().parse(["ef=50"])


# A run


def two_kinds(video_id, num_latent_frames):
    """Videos named bright are 2 everywhere, the others -2: their sign is their kind."""
    mean, std = random_posterior(video_id, num_latent_frames)
    return np.full_like(mean, 2 if video_id.startswith("bright") else -2), std


LENGTHS = {f"{kind}_{n}.mp4": 8 for kind in ("bright", "dark") for n in range(8)}
TABLE = {video_id: Annotation("", {"kind": video_id.split("_")[0]}) for video_id in LENGTHS}
SETTINGS = {
    "condition": ("kind",), "steps": 150, "batch": 8, "learning_rate": 0.02, "ema_decay": 0.9,
    "checkpoint_every": 150, "validate_every": 150, "validation_fraction": 0.2,
}  # fmt: skip


def test_the_share_of_items_whose_condition_is_dropped_is_the_configured_one(make_cache, make_trainer):
    trainer = make_trainer(
        cache=make_cache(LENGTHS, name="kinds.zarr", posterior=two_kinds)[0], labels=TABLE,
        **SETTINGS | {"condition_dropout": 0.3},
    )  # fmt: skip
    dropped = []
    for batch, draws in trainer.batches(range(100)):
        features = trainer.noised(batch, draws).features
        is_known = features.any(1)
        assert torch.equal(is_known, features.sum(1) == 1)
        assert torch.equal(features[is_known], batch.features[is_known])
        dropped += (~is_known).tolist()
    assert 0.25 < np.mean(dropped) < 0.35


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_all_conditions_of_an_item_are_dropped_or_each_of_them_independently(dropout):
    conditions = Conditions.plan(
        ["kind", "age:float"], [{"kind": "a", "age": "3"}, {"kind": "b", "age": "5"}]
    )
    random = np.random.default_rng(1)
    masks = np.array([conditions.draw_mask(random, dropout) for _ in range(20_000)])
    assert masks.shape == (20_000, 4)
    assert (masks[:, 0] == masks[:, 1]).all()
    assert (masks[:, 2] == masks[:, 3]).all()
    known = 1 - dropout
    expected = {(1, 1): known**3, (1, 0): known**2 * dropout, (0, 1): known**2 * dropout}
    for which, share in expected.items():
        assert (masks[:, [0, 2]] == which).all(1).mean() == pytest.approx(share, abs=0.015)


def test_labels_are_frozen_and_missing_ones_are_counted_in_a_note(make_cache, make_trainer, tmp_path):
    cache, _ = make_cache(LENGTHS, name="kinds.zarr", posterior=two_kinds)
    table = {name: told for name, told in TABLE.items() if name != "dark_3.mp4"}
    settings = SETTINGS | {"steps": 2, "checkpoint_every": 2}
    trainer = make_trainer(cache=cache, labels=table, **settings)
    assert any("1 of 16 videos have no label 'kind'" in note for note in trainer.notes)
    list(trainer.steps())
    trainer.close()
    run = read_run(tmp_path / "run")
    assert run.labels["bright_0.mp4"] == {"kind": "bright"}
    assert run.conditions.conditions[0].classes == ("bright", "dark")
    more = settings | {"steps": 4}
    make_trainer(cache=cache, resume=True, **more).close()
    make_trainer(cache=cache, resume=True, labels=table, **more).close()
    unknown = table | {"bright_0.mp4": Annotation("", {"kind": "gray"})}
    with pytest.raises(TrainError, match=r"labels of bright_0\.mp4 differ from those it was started with"):
        make_trainer(cache=cache, resume=True, labels=unknown, **more)
    other = table | {"bright_0.mp4": Annotation("", {"kind": "dark"})}
    with pytest.raises(TrainError, match=r"labels of bright_0\.mp4 differ from those it was started with"):
        make_trainer(cache=cache, resume=True, labels=other, **more)


def test_a_label_may_be_written_otherwise_when_a_run_is_resumed(make_cache, make_trainer):
    cache, _ = make_cache(LENGTHS, name="kinds.zarr", posterior=two_kinds)

    def table(end):
        return {name: Annotation("", {"kind": f"{number % 2}{end}"}) for number, name in enumerate(LENGTHS)}

    settings = SETTINGS | {"steps": 2, "checkpoint_every": 2}
    trainer = make_trainer(cache=cache, labels=table(".0"), **settings)
    assert trainer.run.conditions.conditions[0].classes == ("0", "1")
    list(trainer.steps())
    trainer.close()
    make_trainer(cache=cache, resume=True, labels=table(""), **settings | {"steps": 4}).close()


def test_a_table_without_a_video_of_the_cache_is_refused(make_cache, make_trainer):
    cache, _ = make_cache(LENGTHS, name="kinds.zarr", posterior=two_kinds)
    with pytest.raises(
        InputError, match=r"none of the 1 rows is about one of .* the videos are 'bright_0\.mp4'"
    ):
        make_trainer(cache=cache, labels={"bright_9": Annotation("", {"kind": "bright"})}, **SETTINGS)


def test_first_frames_are_given_to_the_configured_share_of_items_and_carry_no_loss(make_cache, make_trainer):
    trainer = make_trainer(cache=make_cache(LENGTHS, name="kinds.zarr")[0], first_frame=0.4, batch=8)
    given = []
    for batch, draws in trainer.batches(range(50)):
        noised = trainer.noised(batch, draws)
        latents, known, which = noised.inputs.split([2, 2, 1], dim=1)
        assert torch.equal(which[:, :, 1:], torch.zeros_like(which[:, :, 1:]))
        is_given = which[:, 0, 0, 0, 0] == 1
        assert torch.equal(known[is_given, :, 0], batch.latents[is_given, :, 0])
        assert not known[~is_given].any()
        assert not known[:, :, 1:].any()
        assert torch.equal(noised.mask[:, 0, 0, 0, 0], batch.mask[:, 0, 0, 0, 0] * ~is_given)
        assert torch.equal(noised.mask[:, :, 1:], batch.mask[:, :, 1:])
        assert latents.shape == batch.latents.shape
        given += is_given.tolist()
    assert 0.34 < np.mean(given) < 0.46


def test_a_clip_of_one_latent_frame_cannot_be_continued(make_cache, make_trainer):
    with pytest.raises(TrainError, match="have 1 latent frames, so nothing is left"):
        make_trainer(cache=make_cache(LENGTHS, name="kinds.zarr")[0], first_frame=0.5, frames=4)


@pytest.mark.parametrize("text", ["0.1", "0", "-30"])
def test_equal_numbers_in_all_videos_are_refused(text):
    """The network could not learn how to use other numbers."""
    with pytest.raises(TrainError, match=f"x is .*{float(text):g}.* in every training video"):
        Conditions.plan(["x:float"], [{"x": text}] * 3)


@pytest.mark.parametrize("num", [1, 3])
def test_given_first_frames_replace_the_noised_ones(num):
    noised, first_frames = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, num, 2, 2)
    inputs = join_first_frames(noised, first_frames, torch.tensor([0.0, 1.0]))
    shown, known, which = inputs.split([3, 3, 1], dim=1)
    assert torch.equal(shown[1, :, :num], first_frames[1])
    assert torch.equal(shown[0], noised[0])
    assert torch.equal(shown[1, :, num:], noised[1, :, num:])
    assert torch.equal(known[1, :, :num], first_frames[1])
    assert not known[0].any()
    assert not known[1, :, num:].any()
    assert which[:, 0, :, 0, 0].tolist() == [[0] * 4, [1] * num + [0] * (4 - num)]


def test_given_first_frames_carry_no_loss(make_cache, make_trainer):
    cache, _ = make_cache({"long.mp4": 40, "short.mp4": 9}, name="two.zarr")  # 10 and 3 latent frames
    trainer = make_trainer(
        cache=cache, first_frame=1.0, first_frames=3, frames=20, batch=2, validation_fraction=0.0
    )
    ((batch, draws),) = trainer.batches([0])
    noised = trainer.noised(batch, draws)
    counted = dict(zip(batch.video_ids, noised.mask[:, 0, :, 0, 0].tolist(), strict=True))
    assert counted["long.mp4"] == [0, 0, 0, 1, 1]
    assert counted["short.mp4"] == [1, 1, 1, 0, 0]  # nothing would be left: it is given none


def test_a_video_without_a_second_latent_frame_keeps_its_loss(make_cache, make_trainer):
    cache, _ = make_cache({f"{n}.mp4": 4 for n in range(4)}, name="short.zarr")
    trainer = make_trainer(cache=cache, first_frame=1.0, batch=4)
    ((batch, draws),) = trainer.batches([0])
    noised = trainer.noised(batch, draws)
    assert torch.equal(noised.mask, batch.mask)
    assert not noised.inputs[:, 2:].any()
