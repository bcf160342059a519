"""After any damage to any file of a cache, no wrong number is read, and what is lost is told.

    pytest tests/survival/test_random_damage.py -m '' -rP

prints a line per damage: what the readers, verify, prune and the repair made of it.
"""

import random
import shutil

import numpy as np
import pytest

from tests.pipeline.one_thread import OneThread
from tests.thorough import some_of
from vidlat.errors import VidlatError
from vidlat.pipeline.repair_cache import repair_cache
from vidlat.store.pruning.plan import plan_prune
from vidlat.store.pruning.prune import prune
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.opening import open_writer
from vidlat.train.data.batches import LatentBatches

LENGTHS = {f"{number}.mp4": 4 + 5 * number for number in range(6)}


def flip(rng, files):
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return f"flip {file.name}"


def zero(rng, files):
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    first = rng.randrange(len(content) + 1)
    last = min(len(content), first + rng.choice([1, 16, 512, 10**6]))
    content[first:last] = bytes(last - first)
    file.write_bytes(content)
    return f"zero {last - first} of {file.name}"


def truncate(rng, files):
    file = rng.choice(files)
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content) + 1)])
    return f"truncate {file.name}"


def delete(rng, files):
    file = rng.choice(files)
    file.unlink()
    return f"delete {file.name}"


def exchange(rng, files):
    one, two = rng.sample(files, 2)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    return f"exchange {one.name} and {two.name}"


def copy_over(rng, files):
    one, two = rng.sample(files, 2)
    shutil.copy(one, two)
    return f"copy {one.name} over {two.name}"


def copy_beside(rng, files):
    file = rng.choice(files)
    numbered = [other for other in files if other.suffix == ".parquet"]
    name = f"{rng.randrange(99):012d}-{rng.randrange(99):012d}.parquet"
    target = file.with_name(name if file in numbered else f"{file.name}.copy")
    shutil.copy(file, target)
    return f"copy {file.name} as {target.name}"


DAMAGES = [flip, zero, truncate, delete, exchange, copy_over, copy_beside]


def plant(path, rng):
    """Damage one or two files of the cache; returns what was done, with the files' places."""
    # Shards are many: each kind of file gets its share.
    groups = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            where = file.relative_to(path)
            kind = "shard" if "c" in where.parts else where.suffix if where.suffix == ".parquet" else where
            groups.setdefault(kind, []).append(file)
    damage = rng.choice(DAMAGES)
    files = [rng.choice(groups[kind]) for kind in rng.sample(sorted(groups, key=str), 3)]
    shards = rng.sample(groups["shard"], 2)
    return damage(rng, rng.choice([files, shards, groups[".parquet"]]))


def latents_of(path):
    """Every latent, read by windows as a training does and as whole videos."""
    cache, found = open_cache(path), {}
    for video_id, record in cache.records().items():
        windows = cache.read_windows(np.array([record.start]), record.stop - record.start)
        posterior = cache.read_latents(video_id)
        found[video_id] = posterior.mean.tobytes(), posterior.std.tobytes()
        assert tuple(window[0].tobytes() for window in windows) == found[video_id]
    return found


def batches_of(path):
    return [batch.latents.numpy().tobytes() for batch in LatentBatches(path, frames=4, batch=4, steps=3)]


def is_refused(read, path, expected):
    """Whether reading ends in an error of ours; if not, it must give what it gave before the damage."""
    try:
        found = read(path)
    except VidlatError as error:
        if "\n" in str(error):
            pytest.fail(f"more than a line: {error}")
        return True
    assert found == expected
    return False


def survive(path, before, videos, encode_here, rng):
    """Damage a cache, and hold it to its promises; returns what happened in a line."""
    what = plant(path, rng)
    damaged = shutil.copytree(path, path.with_name("damaged"))
    refused = is_refused(latents_of, path, before["latents"])
    refused |= is_refused(batches_of, path, before["batches"])
    try:
        problems = list(verify_cache(path))
    except VidlatError:
        problems = None
    assert problems or not refused, "refused, and verify finds nothing"

    try:
        with open_writer(damaged, "prune") as writer:
            writer.roll_forward()
            prune(writer, plan_prune(damaged))
        pruned = "pruned"
        if not refused:
            assert latents_of(damaged) == before["latents"]
    except VidlatError:
        pruned = "prune refuses"

    if problems is None:
        return f"{what}: no cache any more, {pruned}"
    outcomes = [
        outcome
        for event in repair_cache(path, device="cpu", executor=OneThread())
        for outcome in event.outcomes
    ]
    told = {outcome.state for outcome in outcomes}
    if "not repairable" not in told:
        left = latents_of(path)
        assert left.items() <= before["latents"].items()
        assert left == before["latents"] or "lost" in told, "videos are gone, and nobody was told"
        encode_here(videos, path)
        assert latents_of(path) == before["latents"]
    return f"{what}: {len(problems)} problems, {pruned}, repair {sorted(told)}"


@pytest.fixture(scope="module")
def pristine(make_videos, encode_here, tmp_path_factory):
    """Six videos, encoded in three commits, one failure; and what reading gives."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "videos").mkdir()
    for number in range(3):
        make_videos(folder / "videos", dict(list(LENGTHS.items())[2 * number : 2 * number + 2]))
        (folder / "videos/broken.mp4").write_text("no video")
        encode_here(folder / "videos", folder / "l.zarr")
    read = {"latents": latents_of(folder / "l.zarr"), "batches": batches_of(folder / "l.zarr")}
    return folder, read


def survive_seed(pristine, encode_here, tmp_path, seed):
    folder, before = pristine
    path = shutil.copytree(folder / "l.zarr", tmp_path / "l.zarr")
    return survive(path, before, folder / "videos", encode_here, random.Random(seed))


@pytest.mark.parametrize("seed", some_of(range(12)))
def test_no_damage_gives_a_wrong_number_or_an_untold_loss(pristine, encode_here, tmp_path, seed):
    survive_seed(pristine, encode_here, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 212))
def test_two_hundred_more(pristine, encode_here, tmp_path, seed):
    print(survive_seed(pristine, encode_here, tmp_path, seed))
