"""The commands of VAEs: compare, weights, fit-vae."""

from __future__ import annotations

import click

from vidlat.cli.checks import checked, require_files, require_resumable_training, require_training
from vidlat.cli.declaration import PATH, Command, Group
from vidlat.cli.options import file_option, input_option, labels_option, out_option, resume_option
from vidlat.config import CompareConfig, FitVAEConfig


@click.command(cls=Command, config=CompareConfig, checks=[require_files])
@input_option("File, folder, glob, or a manifest (.csv, .jsonl) with a column path.")
@out_option("Folder for the videos and pictures to look at.")
@file_option("--json", "json_file", ".json", "Write all figures to this .json file.")
@file_option(
    "--report", "report_file", ".html", "Write a page with figures, plots and clips to this .html file."
)
@labels_option("only its subjects count here.")
@click.option(
    "--training",
    type=PATH,
    multiple=True,
    callback=checked(require_training),
    help="Folder of a training by `vidlat fit-vae`: compare its weights, and how soon it learned, on clips "
    "that all of these hold out. Frames are prepared, and stacks are as long, as there. May be repeated.",
)
@click.option(
    "--target-mse",
    type=click.FloatRange(0, min_open=True),
    help="With --training: count epochs until this error; else until the lowest that all have reached.",
)
def compare() -> None:
    """Find the settings for your clips: measure and show some clips with each, without a cache.

    Draws a few clips, evenly over the sorted ids, none of a subject twice before every subject has one.
    Encodes and decodes their first frames with every VAE and every combination of --stack, --stretch,
    --overlap, --blend and --stretch-by, of which each may be a list. A combination that makes no sense is
    named and left out.

    Prints what `vidlat evaluate` measures, and what each setting costs: latent values per pixel, MB of a
    cache and seconds of encoding per 1,000 frames, in this process. The best of each column has a star: of
    sharpness and motion what is nearest to 1, the source's. Motion inside stacks and at their borders depends
    on where the VAE calls of a setting begin; with one frame between them there is no inside.

    Look before you decide: --out gets for each clip an mp4 with the source and all settings side by side, and
    a contact sheet of frames that follow one another.

    \b
    Example:
      vidlat compare --input videos/ --out comparison/ --vae tiny --vae mine.safetensors --size 128 \\
                     --stack 4,16 --stretch 1,2,4 --overlap 0,2 --videos 12 --report comparison.html

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 a VAE or a clip could not be used, 130 interrupted:
    the figures of the clips so far are printed.
    """


@click.group(cls=Group)
def weights() -> None:
    """List, download and check published VAE weights.

    \b
    Example:
      vidlat weights fetch maisi
    """


@weights.command("list", module="weights")
def list_weights() -> None:
    """List the published VAEs with source, licence and state.

    \b
    Example:
      vidlat weights list
    """


@weights.command("fetch", module="weights")
@click.argument("name")
def fetch_weights() -> None:
    """Download published weights once, after showing their licence.

    \b
    Example:
      vidlat weights fetch maisi
    """


@weights.command("check", module="weights")
@click.argument("name_or_path")
def check_weights() -> None:
    """Check the hash and every tensor of weights.

    \b
    Examples:
      vidlat weights check maisi
      vidlat weights check my-vae.safetensors
    """


@click.command(cls=Command, config=FitVAEConfig, checks=[require_files, require_resumable_training])
@input_option("File, folder or glob.")
@out_option("Folder of the run; the weights are written into it as vae.safetensors.")
@resume_option("Continue the training in --out from its last checkpoint.")
@labels_option("its subjects and labels count for the split.")
def fit_vae() -> None:
    """Train a VAE of MAISI's class on your videos, and measure it on held-out subjects.

    From scratch, --network tiny starts at the best linear code (PCA) and improves on it; --network maisi is
    NVIDIA's network and, unless told otherwise, its losses: L1, a discriminator, a perceptual distance.
    --init fine-tunes given weights instead, of a run too; --freeze-encoder then trains the decoder alone.

    With --stack 16 the network sees the motion of 16 frames at once, and --change-weight makes it keep more
    of that motion. The weights state the stacks they were trained on; encode with one of them.

    \b
    Examples:
      vidlat fit-vae --input videos/ --out runs/vae --epochs 20
      vidlat fit-vae --input videos/ --out runs/tuned --init maisi --stack 16 --steps 5000
      vidlat fit-vae --input videos/ --out runs/vae --resume
      vidlat encode --input videos/ --out latents.zarr --vae runs/vae/vae.safetensors --size 128

    Clips of held-out subjects are encoded and decoded with the averaged weights at the start, at validations
    and at the end, as `vidlat compare` would. Every --checkpoint-every steps the weights and a checkpoint are
    written. Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 ends the training after the current step, with a checkpoint; a
    second Ctrl-C ends it at once. A resumed training keeps its settings; --steps, --learning-rate,
    --clip-norm, --precision, --device, --checkpoint-activations, --max-skipped, --checkpoint-every, --keep
    and --tracker can be changed.
    """
