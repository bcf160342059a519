"""Samples above real clips, each under what it shows."""

import numpy as np

from vidlat.evaluate.samples import pictures
from vidlat.evaluate.samples.clips import Clip


def test_each_clip_is_shown_under_its_file_and_condition(tmp_path, monkeypatch):
    def clip(name, **labels):
        return Clip(name=name, group=name, labels=labels, frames=lambda: np.zeros((4, 8, 8), np.uint8))

    shown = []
    monkeypatch.setattr(pictures, "contact_sheet", lambda rows, *_, **__: shown.extend(rows))
    samples = [clip("sample-0003.npy", view="a4c", ef="55"), clip("sample-0004.npy")]
    pictures.write_pictures("samples, 1 step", samples, [clip("7.mp4", view="a2c")], tmp_path, 25.0, 4)
    assert [row.label for row in shown] == [
        "samples, 1 step: sample-0003.npy, view=a4c, ef=55",
        "samples, 1 step: sample-0004.npy",
        "held-out: 7.mp4, view=a2c",
    ]
    assert (tmp_path / pictures.GRID).is_file()
