"""A cache as batches for any PyTorch code."""

import subprocess
import sys
from itertools import islice

import pytest
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader

from vidlat import LatentBatches, TrainConfig, Whitening, plan_split, split_videos
from vidlat.errors import InputError, StoreError, TrainError
from vidlat.labels.reading import read_labels
from vidlat.store.reader import open_cache
from vidlat.train.data.dataset import LatentDataset
from vidlat.train.data.windows import training_windows

LENGTHS = {f"{number}.mp4": 5 + 9 * number for number in range(7)}


@pytest.fixture
def path(make_cache):
    cache, _ = make_cache(LENGTHS)
    return cache.path


def as_lists(batches):
    return [(batch.latents.tolist(), batch.mask.tolist(), batch.video_ids, batch.keys) for batch in batches]


def test_batches_are_those_that_the_trainer_makes_of_the_same_plans(path):
    cache = open_cache(path)
    records = list(cache.records().values())
    batches = LatentBatches(path, frames=8, batch=3, seed=5, first_step=2, steps=4)
    whitening = Whitening.from_records(records, "sample")
    dataset = LatentDataset(cache, records, batches.shape, whitening, "sample")
    plans = [training_windows(records, batches.shape, seed=5, step=step, batch=3) for step in range(2, 6)]
    assert as_lists(batches) == as_lists(dataset.batches(plans))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize(
    ("context", "num_workers"), [pytest.param("spawn", 2, marks=pytest.mark.slow), ("forkserver", 1)]
)
def test_workers_give_the_same_batches_in_the_same_order(path, context, num_workers):
    """Also after this process has read latents."""
    batches = LatentBatches(path, frames=8, batch=2, steps=8)
    here = as_lists(batches)
    loader = DataLoader(batches, batch_size=None, num_workers=num_workers, multiprocessing_context=context)
    assert as_lists(loader) == here
    assert len(here) == 8


def test_forked_worker_of_a_process_that_has_read_stops_with_advice(path):
    """Without the refusal the worker would abort, and the loader would report a lost worker."""
    batches = LatentBatches(path, frames=8, steps=2)
    list(batches)
    loader = DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(StoreError, match="multiprocessing_context='spawn' or 'forkserver'"):
        list(loader)


FORK_FIRST = """
import sys
from torch.utils.data import DataLoader
from vidlat import LatentBatches
batches = LatentBatches(sys.argv[1], frames=8, batch=2, steps=5)
forked = list(DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context="fork"))
here = list(batches)
assert len(here) == 5 and all((a.latents == b.latents).all() for a, b in zip(here, forked, strict=True))
"""


@pytest.mark.slow
def test_forked_workers_of_a_process_that_has_not_read_work(path):
    subprocess.run([sys.executable, "-c", FORK_FIRST, str(path)], check=True, timeout=120)


def test_ranks_split_what_one_process_gets(path):
    whole = list(LatentBatches(path, frames=8, batch=6, steps=5))
    parts = [
        list(LatentBatches(path, frames=8, batch=2, steps=5, rank=rank, num_ranks=3)) for rank in range(3)
    ]
    for one, *three in zip(whole, *parts, strict=True):
        assert torch.equal(one.latents, torch.cat([batch.latents for batch in three]))
        assert one.keys == tuple(key for batch in three for key in batch.keys)


def in_group(rank, path, out, init):
    torch.distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    loader = DataLoader(
        LatentBatches(path, frames=8, batch=2, steps=3),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    torch.save([batch.latents for batch in loader], f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_of_a_group_split_batches_in_their_workers_too(path, tmp_path):
    init = f"file://{tmp_path}/group"
    torch.multiprocessing.spawn(in_group, (str(path), str(tmp_path), init), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for one, *two in zip(LatentBatches(path, frames=8, batch=4, steps=3), *parts, strict=True):
        assert torch.equal(one.latents, torch.cat(two))


def test_without_a_group_the_rank_is_that_of_torchrun(path, monkeypatch):
    expected = as_lists(LatentBatches(path, frames=8, batch=2, steps=2, rank=1, num_ranks=2))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert as_lists(LatentBatches(path, frames=8, batch=2, steps=2)) == expected


def test_batches_continue_another_iteration_and_without_steps_never_end(path):
    endless = as_lists(islice(LatentBatches(path, frames=8), 9))
    assert as_lists(LatentBatches(path, frames=8, first_step=4, steps=5)) == endless[4:]


def test_only_the_given_videos_are_read_and_used_for_whitening(path):
    training, _ = split_videos({video_id: video_id for video_id in LENGTHS}, 0.4)
    batches = LatentBatches(path, frames=8, batch=len(training), videos=training, latents_as="mean", steps=9)
    assert {video_id for batch in batches for video_id in batch.video_ids} == set(training)
    records = [open_cache(path).records()[video_id] for video_id in training]
    assert batches.whitening == Whitening.from_records(records, "mean")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": ["0.mp4", "nobody.mp4"]}, "holds no video nobody.mp4"),
        ({"videos": []}, "no videos to train on"),
        ({"frames": 10}, "whole stacks of this cache, 4, 8, 12"),
        ({"rank": 2, "num_ranks": 2}, "rank 2 of 2"),
        ({"rank": 1}, "give both"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(path, arguments, message):
    with pytest.raises(TrainError, match=message):
        LatentBatches(path, **arguments)


@pytest.fixture
def labels(tmp_path):
    """A table of all videos: every second one of view B, the grade its number; the last has none."""
    rows = [f"{name},{'AB'[number % 2]},{number}" for number, name in enumerate(LENGTHS)]
    rows[-1] = f"{list(LENGTHS)[-1]},,"
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["video_id,view,grade", *rows]))
    return table


def test_features_are_the_labels_of_each_video(path, labels):
    wanted = {"conditions": ["view", "grade:float"], "labels": labels, "frames": 8, "batch": 7, "steps": 1}
    names = list(LENGTHS)
    batches = LatentBatches(path, videos=names[:4], **wanted)
    mean, std = 1.5, 1.25**0.5  # of 0, 1, 2, 3
    held_out = LatentBatches(path, videos=names[4:], **wanted | {"conditions": batches.conditions})
    for number, name in enumerate(names):
        (batch,) = batches if number < 4 else held_out
        is_b = number % 2
        expected = [1 - is_b, is_b, 1, (number - mean) / std] if number < 6 else [0, 0, 0, 0]
        torch.testing.assert_close(
            batch.features[batch.video_ids.index(name)], torch.tensor(expected).float()
        )
    assert next(iter(LatentBatches(path, frames=8, steps=1))).features is None


def test_conditions_that_no_label_tells_and_tables_of_no_video_are_refused(path, labels):
    with pytest.raises(TrainError, match="no training video has a label 'ef'; they have grade, view"):
        LatentBatches(path, conditions=["ef"], labels=labels)
    labels.write_text("video_id,view\nother.mp4,A\n")
    with pytest.raises(InputError, match="none of the 1 rows is about one of the 7 videos"):
        LatentBatches(path, conditions=["view"], labels=labels)


@pytest.mark.parametrize("settings", [{}, {"where": "grade < 4"}, {"validation_fraction": 0.5}])
def test_planned_split_is_the_one_of_a_training(path, labels, make_trainer, settings):
    config = {"validation_fraction": 0.2} | settings
    split = plan_split(path, TrainConfig(**config), labels=labels)
    run = make_trainer(cache=open_cache(path), labels=read_labels(labels), **config).run
    assert (split.training, split.validation, split.test) == (run.training, run.validation, ())
    assert split.validation


def test_planned_split_is_the_one_that_a_table_states(path, tmp_path):
    parts = dict(zip(LENGTHS, ["train", "train", "val", "test", "test", "train", "val"], strict=True))
    table = tmp_path / "split.csv"
    table.write_text("\n".join(["video_id,split", *(f"{id},{part}" for id, part in parts.items())]))
    split = plan_split(path, TrainConfig(split=str(table)))
    assert split.training == ("0.mp4", "1.mp4", "5.mp4")
    assert (split.validation, split.test) == (("2.mp4", "6.mp4"), ("3.mp4", "4.mp4"))
