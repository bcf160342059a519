"""The commands that look after caches: info, ls, split, verify, prune, merge, push, pull."""

from __future__ import annotations

import click

from vidlat.cli.declaration import CACHE, PATH, Command
from vidlat.cli.options import (
    cache_option,
    device_option,
    json_option,
    labels_option,
    latents_option,
    local_cache_option,
    out_option,
    vae_option,
)
from vidlat.config import SplitConfig


@click.command(cls=Command)
@cache_option
@json_option
def info() -> None:
    """Summarise a cache: contents, labels, settings, failures, sources.

    Reads only records and file sizes. Checks at most 20000 source files, spread evenly over the cache;
    `vidlat ls` checks all. docs/reference/info.md describes the JSON.

    \b
    Example:
      vidlat info latents.zarr
      vidlat info s3://bucket/latents.zarr

    \b
    Exit codes: 0 done, 1 not a cache.
    """


@click.command(cls=Command)
@cache_option
@click.option("--failed", is_flag=True, help="List the videos that could not be encoded, and why.")
@click.option("--traceback", is_flag=True, help="With --failed: print the tracebacks too.")
@click.option("--dropped", is_flag=True, help="List the ids that `vidlat prune --drop` has removed.")
@click.option("--where", metavar="CONDITION", help="List the videos for which this holds, as for train.")
@click.option("--labels", is_flag=True, help="Print the subject and the labels too, in a column each.")
@json_option
def ls() -> None:
    """List the videos of a cache with frames, rate and state.

    Prints the state, number of frames, frame rate, duration, and size of the source frames in pixels.

    \b
    States: ok
            warnings  ok, but decoding gave warnings (--json shows them)
            stale     the source's size or modification time has changed
            vanished  the source is gone
            unknown   the source cannot be accessed

    \b
    Examples:
      vidlat ls latents.zarr
      vidlat ls latents.zarr --failed --traceback
      vidlat ls latents.zarr --dropped
      vidlat ls latents.zarr --labels
      vidlat ls latents.zarr --where "view == 'A4C' and num_frames < 16"
      vidlat ls latents.zarr --json | jq '.[] | select(.state != "ok")'

    \b
    Exit codes: 0 done, 1 not a cache, 2 wrong flags.
    """


@click.command(cls=Command, config=SplitConfig)
@cache_option
@out_option("The .csv file to write.", ".csv")
@click.option(
    "--extend", is_flag=True, help="Add the videos that the file lacks; all others stay where they are."
)
@labels_option("its subjects and labels take precedence over those in the cache.")
def split() -> None:
    """Divide the videos of a cache into training, validation and test, for good.

    Writes a table with the columns video_id, subject and split, for `vidlat train --split`. All videos of a
    subject are in one part. The same cache and settings give the same file. Prints how many subjects and
    videos each part has, and with --stratify how the label is distributed there.

    A file that is there is never replaced. With --extend, new videos of a subject join its part, and new
    subjects fill up the shares. It goes by the videos, so that subjects may have other names by then.

    \b
    Examples:
      vidlat split latents.zarr --out split.csv --stratify EF
      vidlat split latents.zarr --out split.csv --fractions 0.7,0.1,0.2 --by patient --seed 1
      vidlat split latents.zarr --out split.csv --extend
      vidlat train --latents latents.zarr --out runs/first --split split.csv

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags.
    """


@click.command(cls=Command)
@latents_option("The cache, a folder of this machine, which may be damaged.", check=None)
@click.option("--repair", is_flag=True, help="Repair what can be repaired; damaged videos are encoded again.")
@vae_option
@device_option
@json_option
def verify() -> None:
    """Read every latent of a cache and print each problem.

    Prints where a problem is, its kind, and what is wrong. Finds wrong checksums, missing chunks, NaN and
    infinity, records that do not match the arrays, statistics that do not match the latents, overlapping
    videos, damaged metadata and record files, foreign files, and files left behind by killed processes.

    --repair encodes damaged videos again, from the same source files, with the settings and the VAE of the
    cache (--vae and --device are for this). It also rewrites damaged metadata, sets damaged record files
    aside and removes what killed processes left behind. A video whose source is gone or has changed is
    reported and kept as it is. Afterwards it verifies what it repaired. If interrupted, run it again: it
    continues. Foreign files are never touched.

    \b
    Examples:
      vidlat verify latents.zarr
      vidlat verify latents.zarr --repair

    \b
    Exit codes: 0 no problem, or all repaired; 1 problems (left), or something was lost, or refused,
    or not a cache; 130 interrupted.
    """


@click.command(cls=Command)
@local_cache_option
@click.option("--yes", is_flag=True, help="Do it; without this, prune only shows what it would do.")
@click.option(
    "--drop", multiple=True, metavar="VIDEO_ID", help="Remove this video for good. May be repeated."
)
@click.option("--keep-vanished", is_flag=True, help="Keep videos whose source file no longer exists.")
def prune() -> None:
    """Remove videos whose source is gone, and unused data.

    Unused is everything in a cache that belongs to no video. Removal is complete: latents, records and
    failure records are erased, as is what killed encodes left behind. Of a video removed by --drop its id is
    kept, with --ids hash a hash, so that no encode adds it again: `vidlat encode --restore VIDEO_ID` does. To
    leave not even the id, delete the source file and prune without --drop. Where needed, remaining videos are
    moved, bit for bit. A source file that was moved counts as gone until an encode has found it again. Prune
    refuses to run while a training reads the cache.

    \b
    Example:
      vidlat prune latents.zarr          shows what would be done
      vidlat prune latents.zarr --yes    does it
      vidlat prune latents.zarr --drop patient7/a.mp4 --yes

    \b
    Exit codes: 0 done, or nothing to do; 1 refused, or a damaged video was left where it is;
    2 wrong flags; 130 interrupted: nothing is lost, run it again.
    """


@click.command(cls=Command)
@click.argument("parts", type=CACHE, nargs=-1, required=True)
@out_option("The cache to make, or one of the same settings to add to.")
def merge() -> None:
    """Make one cache of several that were encoded apart.

    All must have the same settings, ids and layout; the merged cache names the VAE as the first does. The
    parts are not changed, and no latents are computed or read: their files get a second name by hard links,
    or are copied where that is impossible. A part that is being encoded, or whose encode was killed, is
    refused.

    A video that is there already, by its id and the content of its file, is skipped, labels included, and so
    is one that was dropped from the cache at --out. Two contents of one id are refused before anything is
    written. The same content under two ids is listed and stays. Failures come along unless their video is
    there.

    Each part is added as a whole. If interrupted or killed, run it again: it continues; `vidlat prune` frees
    what was left. A video whose source had gone when the merged cache was pruned comes back if a part still
    holds it. Linked latents are one file on disk, so a merged cache is no backup of its parts. Any of them
    may be deleted.

    \b
    Examples:
      vidlat encode --input videos/ --part 2/3 --out part-2.zarr    in job 2 of 3
      vidlat merge part-1.zarr part-2.zarr part-3.zarr --out latents.zarr
      vidlat merge new.zarr --out latents.zarr                      adds to latents.zarr

    \b
    Exit codes: 0 done, or nothing to add; 1 refused; 2 wrong flags; 130 interrupted: what was merged is
    safe, run it again.
    """


@click.command(cls=Command)
@local_cache_option
@click.argument("address")
@click.option(
    "--licence",
    default="",
    help="Of the latents, for the card: an identifier such as cc-by-nc-4.0, or a text. Without it the card "
    "names that of the VAE.",
)
@click.option(
    "--evaluation",
    type=PATH,
    metavar="FILE",
    help="What `vidlat evaluate --input --json` has written of this cache: figures for the card.",
)
def push() -> None:
    """Publish a cache in an object store or on a hub.

    ADDRESS is s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER, with credentials from the
    environment, for which vidlat[remote] is needed; or hf://datasets/OWNER/NAME[/FOLDER], a dataset of the
    Hugging Face hub. The place must be empty, or hold an earlier state of this cache, to which only what is
    new is sent. README.md, the card, is written beside it; words of your own in it are kept.
    docs/how-to/publishing.md tells more.

    The cache appears, or its new state replaces the earlier one, at once and at the end. If interrupted or
    killed, run it again: it continues. An encode may go on meanwhile, and what it adds is left to the next
    push. Prune is kept away. Latents are not checked on the way: `vidlat verify` the cache first.

    \b
    Examples:
      vidlat push latents.zarr s3://bucket/echo.zarr
      vidlat push latents.zarr hf://datasets/owner/echo --licence cc-by-nc-4.0 --evaluation figures.json

    \b
    Exit codes: 0 done, or up to date; 1 refused; 2 wrong flags; 130 interrupted: run it again.
    """


@click.command(cls=Command)
@click.argument("address")
@out_option("The folder to make.")
def pull() -> None:
    """Fetch a published cache into a folder.

    ADDRESS is as for `vidlat push`, or https://HOST/FOLDER of a web server. After one of a hub, @REVISION may
    name an earlier commit. AWS_SKIP_SIGNATURE=true reads a public bucket. Object stores and web servers need
    vidlat[remote].

    The folder appears when everything is there and verified, down to the checksum of every latent frame. If
    interrupted or killed, run it again: it continues.

    \b
    Examples:
      vidlat pull s3://bucket/echo.zarr --out latents.zarr
      vidlat pull https://example.org/echo.zarr --out latents.zarr
      vidlat pull hf://datasets/owner/echo --out latents.zarr

    \b
    Exit codes: 0 done, or up to date; 1 refused, or damaged; 2 wrong flags; 130 interrupted: run it again.
    """
