"""The commands of a diffusion model: train, runs, sample, export."""

from __future__ import annotations

import click

from vidlat.cli.checks import checked, require_cache, require_folder, require_resumable_run
from vidlat.cli.declaration import CACHE, PATH, Command
from vidlat.cli.options import (
    cache_option,
    file_option,
    json_option,
    labels_option,
    out_option,
    resume_option,
    run_option,
    shard_cache_options,
    vae_option,
)
from vidlat.cli.parameters import Option
from vidlat.config import SampleConfig, TrainConfig
from vidlat.config.sample import LONGEST_AVERAGE


@click.command(cls=Command, config=TrainConfig, checks=[require_resumable_run])
@cache_option
@out_option("The folder of the run.")
@resume_option("Continue the run in --out from its last checkpoint.")
@labels_option("its labels take precedence over those in the cache.")
@vae_option
@shard_cache_options
def train() -> None:
    """Train a diffusion U-Net on the latents of a cache.

    The folder of the run gets config.json, metrics.jsonl, TensorBoard curves, checkpoints and samples. Only
    the samples of --sample-every need the VAE.

    \b
    Examples:
      vidlat train --latents latents.zarr --out runs/first --steps 5000 --sample-every 1000
      tensorboard --logdir runs
      vidlat train --latents latents.zarr --out runs/first --resume
      vidlat train --latents latents.zarr --out runs/ef --condition ef:float --split-by subject
      vidlat train --latents latents.zarr --out runs/fixed --split split.csv
      vidlat train --latents latents.zarr --out runs/a4c --where "view == 'A4C' and num_frames >= 32"
      vidlat train --latents latents.zarr --out runs/seen --tracker wandb
      vidlat train --latents latents.zarr --out runs/tuned --init runs/first --learning-rate 1e-4
      vidlat train --latents latents.zarr --out runs/fast --objective mean-flow --distil runs/first
      vidlat train --latents s3://bucket/latents.zarr --cache-dir /scratch/vidlat --out runs/first
      torchrun --nproc-per-node 4 -m vidlat train --latents latents.zarr --out runs/four

    Of a remote cache, latents up to 2 GiB are read into memory at the start. Of a larger one, windows are
    read from the store again and again, or once, into --cache-dir. If the store gives no answer for a
    minute, the run ends with a checkpoint.

    Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 ends the run after the current step, with a checkpoint; a second Ctrl-C
    ends it at once. An interrupted validation is done again by --resume, interrupted samples are left out.
    A step whose loss or gradient is not finite is skipped; more than --max-skipped in a row end the run.
    A resumed run keeps its settings; only --steps, --learning-rate, --clip-norm, --precision, --device,
    --accumulate, --compile, --checkpoint-activations, --patience, --max-skipped, --checkpoint-every, --keep,
    --sample-every, --threads and --tracker can be changed, and --distil where the run that it names has
    moved.
    """


@click.command(cls=Command)
@click.argument(
    "places", metavar="DIR...", type=PATH, nargs=-1, required=True, callback=checked(require_folder)
)
@click.option(
    "--sort",
    default="run",
    show_default=True,
    help="The column to sort by, from the least: run, state, steps, loss, validation, best (its step), kid, "
    "copies, updated, or a setting in which the runs differ.",
)
@json_option
@file_option(
    "--report",
    "report_file",
    ".html",
    "Write a page with the table, loss curves and samples to this .html file.",
)
def runs() -> None:
    """Compare trainings: how far each came, its losses, and the settings in which they differ.

    Finds the runs of `vidlat train` at and below each DIR, also those that are training now. A run is
    running, done, stopped early (by --patience), stopped (with a checkpoint of its last step: --resume goes
    on), failed (killed or ended by an error, after its last checkpoint), or damaged. Loss is the mean of the
    last 100 steps; validation is the lowest validation loss, at which step. KID and suspect copies, with 95 %
    intervals, are there for runs that `vidlat evaluate --run` has measured.

    \b
    Examples:
      vidlat runs runs/
      vidlat runs runs/ --sort validation --report runs.html
      vidlat runs runs/first runs/second --json
    """


@click.command(cls=Command, config=SampleConfig)
@run_option(
    "The folder of the run, or of an exported model, or hf://OWNER/NAME[@REVISION] for one on the hub."
)
@out_option("Folder for the videos.")
@vae_option
@click.option(
    "--latents",
    cls=Option,
    group="Sampling",
    type=CACHE,
    callback=checked(require_cache),
    help="The cache that the run was trained on, for --reject-copies.",
)
@shard_cache_options
def sample() -> None:
    """Sample new videos from a trained run.

    A contact sheet of the samples is written too, and samples.jsonl, which tells how they were drawn. A
    folder with samples is continued by the same command, also with a larger --num, and refused where they
    were drawn otherwise. A later encode of a folder around --out does not take them for clips.

    \b
    Examples:
      vidlat sample --run runs/first --out samples/ -n 8 --seed 1
      vidlat sample --run runs/first --out samples/ --sampler heun --steps 25 --checkpoint best
      vidlat sample --run runs/ef --out samples/ --condition severity=mild --condition ef=35 --guidance 2
      vidlat sample --run runs/ef --out sweep/ --sweep ef=20,40,60 --condition severity=mild -n 4
      vidlat sample --run runs/moving --out samples/ --first-frame frame.png --frames 48
      vidlat sample --run runs/first --out samples/ --reject-copies 0.01 --latents latents.zarr

    --reject-copies draws a copy of a training clip again, up to ten times. A sample that is still one is not
    written. The scale is how near the clips come that the run holds out: docs/how-to/evaluation.md.

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some samples were still copies, 130 interrupted.
    """


@click.command(cls=Command)
@run_option("The folder of the run.", PATH)
@out_option("The new folder.")
@click.option(
    "--checkpoint",
    type=click.Choice(("last", "best")),
    default="last",
    show_default=True,
    help="The last checkpoint, or the one with the lowest validation loss.",
)
@click.option(
    "--average-length",
    type=click.FloatRange(0, LONGEST_AVERAGE),
    default=0.0,
    help="Average the weights over this share of the training, as for sample.",
)
@click.option(
    "--licence",
    default="",
    help="Of the model: an identifier such as cc-by-nc-4.0, or a sentence for its card.",
)
@click.option(
    "--name", default="", help="Of the model, such as OWNER/NAME of the hub; else that of the folder."
)
def export() -> None:
    """Export a run as a folder that others can sample from.

    Holds the averaged weights (safetensors), what sampling has to know, and a model card with the figures of
    `vidlat evaluate --run`, if these weights were evaluated. It names no video, no label of a video and no
    path; the VAE is named with its hash, and is not part of it. Upload the folder to a hub with
    `hf upload OWNER/NAME FOLDER`.

    \b
    Examples:
      vidlat export runs/first --out my-model --licence cc-by-4.0
      vidlat sample --run my-model --out samples/
      vidlat sample --run hf://owner/my-model --out samples/

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 130 interrupted: nothing is written.
    """
