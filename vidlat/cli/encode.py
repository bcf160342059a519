"""`vidlat encode` and `vidlat worker`."""

from __future__ import annotations

import click

from vidlat.cli.checks import require_files, require_size_of_vae
from vidlat.cli.declaration import PATH_PATTERN_OR_ADDRESS, Command
from vidlat.cli.options import cache_out_option, input_option, labels_option
from vidlat.cli.parameters import Option
from vidlat.config import EncodeConfig, WorkerConfig


@click.command(cls=Command, config=EncodeConfig, checks=[require_files, require_size_of_vae])
@input_option(
    "File, folder, glob, or a manifest (.csv, .jsonl) with a column path; or the address of a folder, an "
    "object or a manifest in a bucket: s3://, gs:// or az://.",
    PATH_PATTERN_OR_ADDRESS,
)
@cache_out_option("The cache to create or extend.")
@click.option(
    "--retry-failed", is_flag=True, help="Try again the videos that failed before and have not changed."
)
@click.option(
    "--checksum",
    is_flag=True,
    help="Read every file and compare its content with what was encoded, instead of trusting that a file "
    "with the same path, size and modification time is the same.",
)
@click.option(
    "--dry-run",
    cls=Option,
    group="Basic",
    is_flag=True,
    help="Write nothing: print what would be encoded, with estimates of time and disk space.",
)
@click.option(
    "--restore",
    multiple=True,
    metavar="VIDEO_ID",
    help="Encode this video again, which `vidlat prune --drop` has removed. May be repeated.",
)
@click.option(
    "--show-paths",
    is_flag=True,
    help="With --ids hash: print the paths of videos that failed or have no labels, not only hashes.",
)
@labels_option("its subject and all other columns are stored with the videos.")
def encode() -> None:
    """Encode videos into a cache of latents. Run again, it adds only what is new.

    Settings of an existing cache that are not given are those that it has; a given one that differs is
    refused. The defaults below are those of a new cache.

    A file is new if its path, size or modification time differs from the recorded one and its content does
    too. A video that `vidlat prune --drop` has removed is left out.

    \b
    Examples:
      vidlat encode --input videos/ --out latents.zarr --vae tiny --size 128
      vidlat encode --input more/ --out latents.zarr               with the settings of the cache
      vidlat encode --input videos/ --out latents.zarr --dry-run   estimate time and disk space
      vidlat encode --input videos/ --out latents.zarr --checksum  find files that changed unseen
      vidlat encode --input videos/ --out latents.zarr --crop auto --fps 25 --labels ef.csv
      vidlat encode --input clips.csv --out latents.zarr --ids hash
      vidlat encode --input study/ --out latents.zarr --min-frames 2 --exclude '*_gt*'
      vidlat encode --input s3://bucket/videos/ --out latents.zarr
      vidlat encode --input videos/ --out parts/3.zarr --part 3/16  the third of 16 jobs

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos failed, 130 interrupted.
    """


@click.command(cls=Command, config=WorkerConfig)
def worker() -> None:
    """Run processes that encode on this machine, for `vidlat encode --scheduler` on another.

    Start it once on every machine of a cluster, all of which see the cache, and the videos if they are not in
    a bucket. It ends when the scheduler
    ends, or at Ctrl-C or SIGTERM; what it had not finished is encoded by others.

    \b
    Examples:
      dask scheduler --scheduler-file scheduler.json      on one machine, first
      vidlat worker --scheduler scheduler.json            on every machine
      vidlat worker --scheduler tcp://host:8786 --local-directory /scratch
      vidlat encode --input videos/ --out latents.zarr --scheduler scheduler.json

    \b
    Exit codes: 0 ended, 1 refused, 2 wrong flags, 130 interrupted.
    """
