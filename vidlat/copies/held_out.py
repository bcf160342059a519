"""How near real clips that were not trained on come to the training clips: the scale of what is near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidlat.copies.training_windows import Place
from vidlat.errors import TrainError
from vidlat.store.reader import LatentCache
from vidlat.train.data.windows import WindowShape, window_places
from vidlat.train.runs.frozen_run import Run
from vidlat.video.contact_sheet import evenly_spaced

NEAR = 0.5
"""Distance below which a held-out window shows the same recording as a training window.

Among 46 clips, windows with noise of 20 % and a tenth more or less bright lie at most 0.45 from what they
were, held-out windows at least 0.98 from any training window (docs/how-to/evaluation.md).
"""

MOST_WINDOWS = 1000
"""Windows of held-out videos that are compared with the training windows, about."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The distances of held-out windows to the nearest training window.

    distances: (M,). places, subjects: of each window. left_out: held-out videos that nearly equal a training
    video, as the run found when it started; their windows are not among these.
    """

    distances: Array
    places: tuple[Place, ...]
    subjects: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def num_subjects(self) -> int:
        """Different subjects."""
        return len(set(self.subjects))

    def same_recordings(self) -> list[str]:
        """The held-out videos of which a window is nearer than NEAR to a training window."""
        near = zip(self.places, self.distances < NEAR, strict=True)
        return list(dict.fromkeys(place.record.video_id for place, is_near in near if is_near))

    def threshold(self, quantile: float) -> float:
        """The distance below which a share of at most `quantile` of the windows lies."""
        return float(thresholds(self.distances, np.ones((1, len(self.distances))), quantile)[0])


def thresholds(distances: Array, weights: Array, quantile: float) -> Array:
    """(R,): for each row of weights (R, M), the least distance with more than `quantile` of the weight up to
    it, so that at most this share lies below.
    """
    order = np.argsort(distances)
    up_to = np.cumsum(weights[:, order], axis=1)
    # A share of exactly the quantile is not more than it, whatever the rounding.
    first: npt.NDArray[np.intp] = (up_to > (quantile + 1e-12) * up_to[:, -1:]).argmax(1)
    return np.asarray(distances[order][first])


def held_out_places(run: Run, cache: LatentCache, shape: WindowShape) -> list[Place]:
    """Windows of the validation videos, evenly over the videos and over each of them.

    Raises TrainError for a run that holds no video out but near-duplicates of training videos.
    """
    records, videos = cache.records(), run.held_out
    if not videos:
        kept = "none" if not run.validation else "only near-duplicates of training videos"
        raise TrainError(
            f"copies are told by the distances of held-out videos, and the run holds out {kept}; train with "
            "--validation-fraction above 0"
        )
    places = []
    for video_id in (videos[number] for number in evenly_spaced(len(videos), MOST_WINDOWS)):
        starts = window_places(records[video_id], shape)
        numbers = evenly_spaced(len(starts), -(-MOST_WINDOWS // len(videos)))
        places += [Place(records[video_id], starts[number]) for number in numbers]
    return places
