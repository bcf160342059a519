"""Replacing what the encode reads from files."""

from functools import partial

from vidlat.pipeline.read_video import read_video
from vidlat.types import WHOLE, Video, VideoHeader
from vidlat.video.reader import open_video


def frames_of(path, warn=lambda _: None):
    """The frames of a file, as every reader gives them."""
    return open_video(path, WHOLE, warn).frames()


def reading(read_frames):
    """A `read_video` of videos whose 8 bit frames are those of read_frames(path, warn)."""

    def open_video(path, selection, warn, how):
        return Video(
            frames=lambda: iter(read_frames(path, warn)),
            auto_range=lambda: (0.0, 255.0),
            header=lambda: VideoHeader(num_frames=None, seconds=None),
        )

    return partial(read_video, open_video=open_video)
