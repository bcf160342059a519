"""The videos of the fixtures `videos` and `undisturbed`, and what became of them."""

LENGTHS = {f"{number:02d}.mp4": 3 + 5 * number % 11 for number in range(10)}
"""Frames of each; `broken.mp4` beside them is no video."""


def videos_in(events, kind):
    return sorted(video.video_id for event in events for video in getattr(event, kind))
