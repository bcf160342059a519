"""After a kill at any moment the cache opens, holds what it held, and the same command completes it.

    python tests/survival/test_random_kills.py --kills 100 --seed 3

prints a line a kill, and at the end how many fell into which phase.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.survival.encode_phases import BEFORE_THE_LEASE, ONCE, PHASES, wait_for_phase
from tests.survival.encode_process import VIDLAT, EncodeProcess, encoding, make_videos
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.opening import open_writer

NUM_VIDEOS = 40
VICTIMS = {"driver": 5, "group": 3, "one worker": 1, "all workers": 1}
"""Relative frequencies; rare for workers, since the encode then has to continue to its end."""

MOST_TIMES = 6
"""A kill waits until its phase has come so often, or less; after a miss the next one waits for fewer."""

NUM_YIELDS = (0, 0, 3, 30, 300, 3000)
"""Delay of the kill after its phase has come, in calls of sched_yield."""


def content_of(path: Path) -> dict[str, object]:
    """All latents, bit for bit, and every field of the records except the place in the cache."""
    cache = open_cache(path)
    content = {}
    for video_id, record in cache.records().items():
        latents = cache.read_latents(video_id)
        facts = replace(record, start=0, stop=record.stop - record.start, sequence=0)
        content[video_id] = facts, latents.mean.tobytes(), latents.std.tobytes()
    assert not cache.failures()
    return content


@dataclass(frozen=True)
class Plan:
    """When a kill happens, what it kills, and what becomes of orphaned workers.

    orphans: "ended" before the next encode starts, "left" to what they do, or "frozen" at the moment of the
    kill and let go on while the next encode is at work.
    """

    phase: str
    times: int
    victim: str
    num_yields: int
    orphans: str

    @property
    def kills_driver(self) -> bool:
        return self.victim in ("driver", "group")


class Campaign:
    """Encodes the same videos repeatedly and kills the encode until enough kills have hit."""

    def __init__(self, folder: Path, num_kills: int, seed: int, processes: ExitStack) -> None:
        self.num_kills, self.random = num_kills, random.Random(seed)
        self.cache, self.scratch, self.processes = folder / "l.zarr", folder / "scratch", processes
        self.videos = make_videos(folder / "videos", NUM_VIDEOS)
        self.undisturbed, self.many_commits = folder / "undisturbed.zarr", folder / "many.zarr"
        self.histogram: Counter[tuple[str, str]] = Counter()
        self.num_misses: Counter[str] = Counter()
        self.num_lives = 0
        self.committed: set[str] = set()
        self.next_victims: list[str] = []
        self.orphaned: list[EncodeProcess] = []
        self._encode_undisturbed()
        self.expected = content_of(self.undisturbed)
        self._make_many_commits()

    @property
    def is_complete(self) -> bool:
        return self.committed == set(self.expected)

    def run(self) -> None:
        self._begin_life()
        while self.histogram.total() < self.num_kills:
            if self.is_complete:
                self._end_life()
                self._begin_life()
            self._play(self._choose())
        if not self.is_complete:
            self._encode_to_the_end()
        self._end_life()
        self._check_with_commands()

    def _encode(self, cache: Path) -> EncodeProcess:
        scratch = self.scratch / str(len(list(self.scratch.glob("*"))))
        return self.processes.enter_context(encoding(self.videos, cache, scratch))

    def _encode_undisturbed(self) -> None:
        encode = self._encode(self.undisturbed)
        assert encode.wait() == 0, encode.err

    def _make_many_commits(self) -> None:
        """Half of the videos in so many commits that a few more trigger a merge of the records."""
        shutil.copytree(self.undisturbed, self.many_commits)
        records = open_cache(self.many_commits).records()
        with open_writer(self.many_commits, "test") as writer:
            writer.remove(records)
            writer.compact_records()
            for record in 3 * list(records.values())[: NUM_VIDEOS // 2]:
                writer.commit([record])

    def _begin_life(self) -> None:
        self.committed = set()
        self.num_lives += 1
        if self._merges():
            shutil.copytree(self.many_commits, self.cache)
            self._check_content()

    def _merges(self) -> bool:
        return self.num_lives % 3 == 0

    def _end_life(self) -> None:
        for orphaned in self.orphaned:
            orphaned.thaw()
            orphaned.wait_for_all()
        self.orphaned.clear()
        assert {problem.kind for problem in verify_cache(self.cache)} <= {"leftover"}
        if self.histogram.total() < self.num_kills:
            shutil.rmtree(self.cache)

    def _choose(self) -> Plan:
        names = set(PHASES) if self._merges() else set(PHASES) - {"merge"}
        if self.cache.exists():
            names -= {"cache being built"}
        # What has been hit least: every phase gets its share.
        hits = {name: sum(self.histogram[name, victim] for victim in VICTIMS) for name in names}
        phase = self.random.choice(sorted(name for name in names if hits[name] == min(hits.values())))
        # Each miss costs a whole encode.
        most_times = 1 if phase in ONCE else max(MOST_TIMES - self.num_misses[phase], 1)
        return Plan(
            phase=phase,
            times=self.random.randint(1, most_times),
            victim=self._next_victim(),
            num_yields=self.random.choice(NUM_YIELDS),
            orphans=self.random.choice(["ended", "left", "frozen"]),
        )

    def _next_victim(self) -> str:
        if not self.next_victims:
            num_victims = sum(VICTIMS.values())
            self.next_victims = self.random.sample(list(VICTIMS), num_victims, counts=VICTIMS.values())
        return self.next_victims.pop()

    def _play(self, plan: Plan) -> None:
        encode = self._encode(self.cache)
        has_come = wait_for_phase(encode, plan.phase, plan.times)
        for orphaned in self.orphaned:
            orphaned.thaw()
        has_hit = has_come and self._kill(encode, plan)
        has_started = True
        if has_hit and plan.kills_driver:
            self.orphaned.append(encode)
            if plan.orphans == "ended":
                encode.wait_for_all()
        else:
            has_started = self._has_started(encode, plan.phase)
            encode.wait_for_all()
        if self.cache.exists():
            self._check_content()
        self.histogram[plan.phase, plan.victim] += has_hit
        self.num_misses[plan.phase] = 0 if has_hit else self.num_misses[plan.phase] + 1
        what = f"kill {self.histogram.total():>3}" if has_hit else "no hit  "
        done = f"{len(self.committed)} of {NUM_VIDEOS} videos"
        print(
            f"{what}  {plan.victim:<11}  {plan.phase} x {plan.times}, orphans {plan.orphans}: {done}",
            flush=True,
        )
        assert self.is_complete or not has_started or (has_hit and plan.kills_driver)

    def _has_started(self, encode: EncodeProcess, phase: str) -> bool:
        """Whether an encode whose driver lives succeeds; False if it reports that no worker could start."""
        if encode.wait() == 0:
            return True
        assert phase in BEFORE_THE_LEASE, encode.out + encode.err
        assert re.fullmatch(r"Error: .* could not be started .*\n", encode.err), encode.err
        return False

    def _kill(self, encode: EncodeProcess, plan: Plan) -> bool:
        """Kill the victim of the plan; returns whether there was one."""
        for _ in range(plan.num_yields):
            os.sched_yield()
        if not plan.kills_driver:
            workers = encode.workers()
            for pid in workers[:1] if plan.victim == "one worker" else workers:
                os.kill(pid, signal.SIGKILL)
            return bool(workers) and encode.is_running()
        if plan.orphans == "frozen":
            encode.freeze()
        (os.killpg if plan.victim == "group" else os.kill)(encode.pid, signal.SIGKILL)
        return encode.wait() == -signal.SIGKILL

    def _encode_to_the_end(self) -> None:
        encode = self._encode(self.cache)
        assert encode.wait() == 0, encode.out + encode.err
        self._check_content()
        assert self.is_complete

    def _check_content(self) -> None:
        content = content_of(self.cache)
        assert content.keys() >= self.committed
        for video_id, found in content.items():
            assert found == self.expected[video_id], video_id
        self.committed = set(content)

    def _check_with_commands(self) -> None:
        assert {problem["kind"] for problem in problems_of(self.cache)} <= {"leftover"}
        subprocess.run([sys.executable, "-c", VIDLAT, "prune", str(self.cache), "--yes"], check=True)
        assert problems_of(self.cache) == []
        self._check_content()
        assert self.is_complete


def problems_of(path: Path) -> list[dict[str, str]]:
    """What `vidlat verify` finds."""
    command = [sys.executable, "-c", VIDLAT, "verify", str(path), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True)
    problems = json.loads(answer.stdout)["problems"]
    assert answer.returncode == bool(problems), answer.stderr
    return problems


def play(folder: Path, num_kills: int, seed: int) -> Counter[tuple[str, str]]:
    """Returns how many kills hit, by phase and victim."""
    with ExitStack() as processes:
        campaign = Campaign(folder, num_kills, seed, processes)
        campaign.run()
    return campaign.histogram


@pytest.mark.slow
def test_cache_survives_kills_at_random_moments(tmp_path):
    histogram = play(tmp_path, num_kills=50, seed=0)
    hit_phases = {phase for phase, _ in +histogram}
    assert hit_phases == set(PHASES)
    assert {victim for _, victim in +histogram} == set(VICTIMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        histogram = play(Path(folder), options.kills, options.seed)
    print(f"\n{'phase':<22}" + "".join(f"{victim:>13}" for victim in VICTIMS))
    for phase in PHASES:
        print(f"{phase:<22}" + "".join(f"{histogram[phase, victim]:>13}" for victim in VICTIMS))


if __name__ == "__main__":
    main()
