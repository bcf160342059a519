"""The commands that show what latents decode to: preview, decode, evaluate, report."""

from __future__ import annotations

import click

from vidlat.cli.checks import checked, require_folder, require_input, require_run
from vidlat.cli.declaration import PATH, PATH_OR_PATTERN, Command
from vidlat.cli.options import (
    cache_option,
    device_option,
    file_option,
    out_option,
    shard_cache_options,
    vae_option,
)
from vidlat.cli.parameters import Option
from vidlat.config import EvaluateConfig

sources_option = click.option(
    "--input",
    "inputs",
    cls=Option,
    group="Basic",
    type=PATH_OR_PATTERN,
    multiple=True,
    callback=checked(require_input),
    help="The videos that the cache was made from, to compare with. May be repeated.",
)


@click.command(cls=Command)
@cache_option
@file_option("--out", "out", ".png", "The picture to write: frames, decoded ones below their source.")
@file_option("--video", "video", ".mp4", "The video to write: source and decoded side by side, moving.")
@click.option(
    "--videos", type=click.IntRange(min=1), default=6, show_default=True, help="Largest number of videos."
)
@vae_option
@device_option
@shard_cache_options
def preview() -> None:
    """Show some videos of a cache and their sources, as a picture (--out), a video (--video) or both.

    Source frames are shown as the VAE saw them, with the decoded frames below, or in a video beside them. The
    videos are spread evenly over the sorted ids. A source that is gone or has changed is left out.

    The picture has of each three frames that are spread over it, and four that follow one another across a
    border of two stacks, which is marked. It shows dark videos brighter, source and decoded alike, and says
    so; PSNR is that of the frames as they are. The video has the first 96 frames of each, as they are, at the
    median of their frame rates.

    \b
    Examples:
      vidlat preview latents.zarr --out preview.png
      vidlat preview latents.zarr --video preview.mp4 --videos 2

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos are damaged, 130 interrupted.
    """


@click.command(cls=Command)
@cache_option
@out_option("Folder for the videos.")
@click.option(
    "--video-id", "video_ids", multiple=True, help="Decode this video alone. May be repeated.  [default: all]"
)
@click.option(
    "--with-source",
    is_flag=True,
    help="Show the frames of the source on the left, as the VAE saw them; dark videos are shown brighter.",
)
@vae_option
@device_option
@shard_cache_options
def decode() -> None:
    """Decode a cache to video, one mp4 per video.

    Each has its original number of frames and median frame rate. a.avi becomes a.mp4; if the cache has an
    a.mp4 too, they become a.avi.mp4 and a.mp4.mp4. decoded.jsonl tells what they were decoded from. The same
    command continues a folder, after Ctrl-C or once the cache has grown; one with videos of other latents, of
    another VAE or decoded without --with-source is refused. A later encode of a folder around --out does not
    take them for clips.

    \b
    Examples:
      vidlat decode --latents latents.zarr --out recon/
      vidlat decode --latents latents.zarr --out look/ --video-id patient_10_L1.mp4 --with-source

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos failed, 130 interrupted.
    """


@click.command(cls=Command, config=EvaluateConfig)
@cache_option
@sources_option
@click.option("--max-videos", type=click.IntRange(1), help="With --input: compare so many, evenly spread.")
@click.option(
    "--run",
    "run_dir",
    cls=Option,
    group="Basic",
    type=PATH,
    callback=checked(require_run),
    help="Draw samples of this run, and measure them.",
)
@click.option(
    "--samples",
    cls=Option,
    group="Basic",
    type=PATH,
    callback=checked(require_folder),
    help="Measure the videos of this folder, which may be of any tool.",
)
@click.option(
    "--out",
    cls=Option,
    group="Basic",
    type=PATH,
    help="Folder for figures, pictures and samples; else evaluation in --run, or evaluation-test.",
)
@file_option(
    "--json",
    "json_file",
    ".json",
    "Write all figures to this .json file; of samples else evaluation.json in --out.",
)
@vae_option
@shard_cache_options
def evaluate() -> None:
    """Measure what the VAE keeps of videos (--input), or how good samples are (--run, --samples).

    With --input: compare decoded latents with their sources. Prints MSE, PSNR, SSIM, sharpness and motion per
    video and overall, beside two baselines without a network: block averages (1 number per block that a
    latent position covers) and a PCA of blocks fitted on the other videos (as many numbers per block as a
    latent has channels).

    Sharpness is the energy of fine detail over the source's. Motion is the change from frame to frame: its
    energy over the source's, inside stacks and at their borders, and its correlation with the source's; 1 is
    right. PSNR and SSIM compare single frames and hardly see motion: a clip that shows the mean of four
    frames four times may have 40 dB. The criteria at the end (MSE < 0.05, PSNR > 38 dB, SSIM > 0.88) are
    targets for the pictures alone; on easy clips the baselines come close to them.

    With --run: draw samples, with the conditions of held-out videos, and compare them with clips of these, in
    features of the VAE's latents and of any --features. Prints kernel and Fréchet distances, precision,
    recall, density and coverage, motion, sharpness, diversity, and whether conditions can be read from
    samples, with intervals that draw subjects; all beside real training clips, the same standing still, and
    noise. --out gets pictures too, and a plot of the motion by frequency.
    docs/how-to/evaluation.md says how to read it. --latents is the cache that the run was trained on. Ctrl-C
    keeps the samples so far; the same command goes on. --samples does the same for a folder of videos, on the
    split and the clip length of --run where it is given. --held-out test compares with the videos that the
    split keeps for testing: at the end, since whoever chooses a run by them can no longer test it with them.

    \b
    Examples:
      vidlat evaluate --latents latents.zarr --input videos/ --json quality.json
      vidlat evaluate --latents latents.zarr --run runs/first --steps 10,50
      vidlat evaluate --latents latents.zarr --run runs/first --held-out test
      vidlat evaluate --latents latents.zarr --samples samples/ --run runs/first --out quality/

    \b
    Exit codes: 0 all compared, 1 refused, 2 wrong flags, 3 some videos left out: a source that is missing,
    unreadable or not what was encoded, or damaged latents; 130 interrupted.
    """


@click.command(cls=Command)
@cache_option
@out_option("The .html file to write.", ".html")
@sources_option
@click.option("--max-videos", type=click.IntRange(1), help="Compare this many, evenly spread over the ids.")
@vae_option
@device_option
@shard_cache_options
def report() -> None:
    """Write a page about a cache: one HTML file to look at, print or send.

    Shows what the cache holds, how its latents are distributed and how far that is from a standard normal,
    which subjects or source folders differ from the rest, failures and warnings, and a few decoded clips.
    With --input it also shows what `vidlat evaluate` measures, and the worst and best clips beside their
    sources. docs/how-to/report.md says how to read it.

    The file needs nothing else, no network either, and stays below 20 MB. Of a cache made with --ids hash it
    holds no name of a file or folder.

    \b
    Example:
      vidlat report latents.zarr --out report.html --input videos/

    \b
    Exit codes: 0 done, 1 refused, 2 wrong flags, 3 some videos are not in all of it, 130 interrupted:
    nothing is written.
    """
