"""The command line: every command with its flags and help. The bodies are in vidlat/commands/."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from vidlat import __version__
from vidlat.commands.declaration import PATH, PATH_OR_PATTERN, Group
from vidlat.config import CompareConfig, EncodeConfig, FitVAEConfig, SampleConfig, TrainConfig

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

latents_argument = click.argument("latents", type=PATH)
latents_option = click.option("--latents", type=PATH, required=True, help="The cache to read.")
vae_option = click.option(
    "--vae",
    help="Where the VAE of the latents is now, if it was moved after they were encoded, or one with another "
    "decoder: as for encode.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU where there is one."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def out_option(help: str) -> Decorator:
    """`--out`, required, with what it is for this command."""
    return click.option("--out", type=PATH, required=True, help=help)


def input_option(help: str) -> Decorator:
    """`--input`, required; may be repeated."""
    return click.option(
        "--input",
        "inputs",
        type=PATH_OR_PATTERN,
        multiple=True,
        required=True,
        help=f"{help} May be repeated.",
    )


def labels_option(help: str) -> Decorator:
    """`--labels`, a table."""
    return click.option(
        "--labels",
        type=PATH,
        help=f"CSV or JSONL table with a column video_id, of a video or of a scan for all its slices; {help}",
    )


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidlat")
def commands() -> None:
    """Encode medical video once with a frozen VAE; train diffusion models from the latents.

    \b
    The whole path is three commands:
      vidlat encode --input videos/ --out latents.zarr
      vidlat train  --latents latents.zarr --out runs/first
      vidlat sample --run runs/first --out samples/
    """


@commands.command(config=EncodeConfig)
@input_option("File, folder, glob, or a manifest (.csv, .jsonl) with a column path.")
@out_option("The cache to create or extend.")
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
    is_flag=True,
    help="Write nothing: print what would be encoded, with estimates of time and disk space.",
)
@click.option(
    "--skip-stills", is_flag=True, help="Leave out DICOM images of a single frame that belong to no series."
)
@click.option(
    "--show-paths",
    is_flag=True,
    help="With --ids hash: print the paths of videos that failed or have no labels, not only hashes.",
)
@labels_option("its subject and all other columns are stored with the videos.")
def encode() -> None:
    """Encode videos into a cache of latents. Run again, it adds only what is new.

    A file is new if its path, size or modification time differs from the recorded one and its content does
    too.

    \b
    Examples:
      vidlat encode --input videos/ --out latents.zarr --vae tiny --size 128
      vidlat encode --input videos/ --out latents.zarr --dry-run   estimate time and disk space
      vidlat encode --input videos/ --out latents.zarr --checksum  find files that changed unseen
      vidlat encode --input videos/ --out latents.zarr --crop auto --fps 25 --labels ef.csv
      vidlat encode --input clips.csv --out latents.zarr --ids hash

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos failed, 130 interrupted.
    """


@commands.command()
@latents_argument
@json_option
def info() -> None:
    """Summarise a cache: contents, settings, failures, sources.

    Reads only records and file sizes. Checks at most 20000 source files, spread evenly over the cache;
    `vidlat ls` checks all. docs/info.md describes the JSON.

    \b
    Example:
      vidlat info latents.zarr

    \b
    Exit codes: 0 done, 1 not a cache.
    """


@commands.command()
@latents_argument
@click.option("--failed", is_flag=True, help="List the videos that could not be encoded, and why.")
@click.option("--traceback", is_flag=True, help="With --failed: print the tracebacks too.")
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
      vidlat ls latents.zarr --json | jq '.[] | select(.state != "ok")'

    \b
    Exit codes: 0 done, 1 not a cache, 2 wrong flags.
    """


@commands.command()
@latents_argument
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


@commands.command()
@latents_argument
@click.option("--yes", is_flag=True, help="Do it; without this, prune only shows what it would do.")
@click.option("--drop", multiple=True, metavar="VIDEO_ID", help="Remove this video. May be repeated.")
@click.option("--keep-vanished", is_flag=True, help="Keep videos whose source file no longer exists.")
def prune() -> None:
    """Remove videos whose source is gone, and unused data.

    Unused is everything in a cache that belongs to no video. Removal is complete: latents, records and
    failure records are erased, as is what killed encodes left behind. Where needed, remaining videos are
    moved, bit for bit. A source file that was moved counts as gone until an encode has found it again. Prune
    refuses to run while a training reads the cache.

    \b
    Example:
      vidlat prune latents.zarr          shows what would be done
      vidlat prune latents.zarr --yes    does it

    \b
    Exit codes: 0 done, or nothing to do; 1 refused, or a damaged video was left where it is;
    2 wrong flags; 130 interrupted: nothing is lost, run it again.
    """


@commands.command()
@latents_argument
@out_option("The PNG to write.")
@click.option(
    "--videos", type=click.IntRange(min=1), default=6, show_default=True, help="Largest number of videos."
)
@vae_option
@device_option
def preview() -> None:
    """Draw source and decoded frames of some videos of a cache.

    Source frames are shown as the VAE saw them, with the decoded frames below. The videos are spread evenly
    over the sorted ids, the frames over each video. PSNR is computed over the frames shown. A source that is
    gone or has changed is left out.

    \b
    Example:
      vidlat preview latents.zarr --out preview.png

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos are damaged, 130 interrupted.
    """


@commands.command(config=TrainConfig)
@latents_option
@out_option("The folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint.")
@labels_option("its labels take precedence over those in the cache.")
@vae_option
def train() -> None:
    """Train a diffusion U-Net on the latents of a cache.

    The folder of the run gets config.json, metrics.jsonl, TensorBoard curves, checkpoints and samples. Only
    the samples of --sample-every need the VAE.

    \b
    Examples:
      vidlat train --latents latents.zarr --out runs/first --steps 5000 --sample-every 1000
      tensorboard --logdir runs
      vidlat train --latents latents.zarr --out runs/first --resume
      vidlat train --latents latents.zarr --out runs/ef --condition ef:float --split-by patient
      torchrun --nproc-per-node 4 -m vidlat train --latents latents.zarr --out runs/four

    Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 ends the run after the current step, with a checkpoint; a second Ctrl-C
    ends it at once.
    A step whose loss or gradient is not finite is skipped; more than --max-skipped in a row end the run.
    A resumed run keeps its settings; only --steps, --learning-rate, --clip-norm, --precision, --device,
    --accumulate, --compile, --checkpoint-activations, --max-skipped, --checkpoint-every, --keep and
    --sample-every can be changed.
    """


@commands.command(config=SampleConfig)
@click.option("--run", "run_dir", type=PATH, required=True, help="The folder of the run.")
@out_option("Folder for the videos.")
@vae_option
def sample() -> None:
    """Sample new videos from a trained run.

    A contact sheet of the samples is written too. A later encode of a folder around --out does not take them
    for clips.

    \b
    Examples:
      vidlat sample --run runs/first --out samples/ -n 8 --seed 1
      vidlat sample --run runs/first --out samples/ --sampler heun --steps 25 --checkpoint best
      vidlat sample --run runs/ef --out samples/ --condition severity=mild --condition ef=35 --guidance 2
      vidlat sample --run runs/moving --out samples/ --first-frame frame.png --frames 48
    """


@commands.command()
@latents_option
@out_option("Folder for the videos.")
@vae_option
@device_option
def decode() -> None:
    """Decode a cache to video, one mp4 per video.

    Each has its original number of frames and median frame rate. A later encode of a folder around --out
    does not take them for clips.

    \b
    Example:
      vidlat decode --latents latents.zarr --out recon/

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos failed, 130 interrupted.
    """


@commands.command()
@latents_option
@input_option("The videos that the cache was made from.")
@click.option("--max-videos", type=click.IntRange(1), help="Compare this many, evenly spread over the ids.")
@click.option("--json", "json_file", type=PATH, help="Write all figures to this .json file.")
@vae_option
@device_option
def evaluate() -> None:
    """Compare decoded latents with their sources: the pictures, and their motion.

    Prints MSE, PSNR, SSIM, sharpness and motion per video and overall, beside two baselines without a
    network: block averages (1 number per block that a latent position covers) and a PCA of blocks fitted on
    the other videos (as many numbers per block as a latent has channels).

    Sharpness is the energy of fine detail over the source's. Motion is the change from frame to frame: its
    energy over the source's, inside stacks and at their borders, and its correlation with the source's; 1 is
    right. PSNR and SSIM compare single frames and hardly see motion: a clip that shows the mean of four
    frames four times may have 40 dB. The criteria at the end (MSE < 0.05, PSNR > 38 dB, SSIM > 0.88) are
    targets for the pictures alone; on easy clips the baselines come close to them.

    \b
    Example:
      vidlat evaluate --latents latents.zarr --input videos/ --json quality.json

    \b
    Exit codes: 0 all compared, 1 refused, 2 wrong flags, 3 some not compared: a source is missing,
    unreadable or not what was encoded, or latents are damaged; 130 interrupted.
    """


@commands.command()
@latents_argument
@out_option("The .html file to write.")
@click.option(
    "--input",
    "inputs",
    type=PATH_OR_PATTERN,
    multiple=True,
    help="The videos that the cache was made from, to compare with. May be repeated.",
)
@click.option("--max-videos", type=click.IntRange(1), help="Compare this many, evenly spread over the ids.")
@vae_option
@device_option
def report() -> None:
    """Write a page about a cache: one HTML file to look at, print or send.

    Shows what the cache holds, how its latents are distributed and how far that is from a standard normal,
    which subjects or source folders differ from the rest, failures and warnings, and a few decoded clips.
    With --input it also shows what `vidlat evaluate` measures, and the worst and best clips beside their
    sources. docs/report.md says how to read it.

    The file needs nothing else, no network either, and stays below 20 MB. Of a cache made with --ids hash it
    holds no name of a file or folder.

    \b
    Example:
      vidlat report latents.zarr --out report.html --input videos/

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos are not in all of it, 130 interrupted:
    nothing is written.
    """


@commands.command(config=CompareConfig)
@input_option("File, folder, glob, or a manifest (.csv, .jsonl) with a column path.")
@out_option("Folder for the videos and pictures to look at.")
@click.option("--json", "json_file", type=PATH, help="Write all figures to this .json file.")
@click.option(
    "--report",
    "report_file",
    type=PATH,
    help="Write a page with figures, plots and clips to this .html file.",
)
@labels_option("only its subjects count here.")
@click.option(
    "--training",
    type=PATH,
    multiple=True,
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


@commands.group()
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


@commands.command(config=FitVAEConfig)
@input_option("File, folder or glob.")
@out_option("Folder of the run; the weights are written into it as vae.safetensors.")
@click.option("--resume", is_flag=True, help="Continue the training in --out from its last checkpoint.")
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
    --clip-norm, --precision, --device, --checkpoint-activations, --max-skipped, --checkpoint-every and --keep
    can be changed.
    """


def main() -> None:
    """Run the command line; ends the process."""
    sys.exit(commands())
