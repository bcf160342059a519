"""A run in TensorBoard, under the name of its folder: curves, pictures, settings.

A validation is a run of its own there, NAME/validation, so that its curve of a tag is in one chart with that
of the training. Charts come in the order of their tags, so those of `training/` come after the losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Experiment, HParamInfo, MetricInfo, MetricName
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from torch.utils.tensorboard import SummaryWriter

from vidlat.errors import printable

TRAINING, VALIDATION = "", "validation"
"""The folders of event files inside that of a run."""

LOSSES = ("loss", "mse")
"""Curves with a chart of their own, before all others."""

_TYPES = {"bool": "DATA_TYPE_BOOL", "string": "DATA_TYPE_STRING", "number": "DATA_TYPE_FLOAT64"}


class EventFiles:
    """Adds event files to a run that goes on after `step`; later steps, of a killed process, are not shown.

    settings: are shown as text and among the hyperparameters.
    """

    def __init__(self, run_dir: Path, step: int, settings: Mapping[str, Any]) -> None:
        self._run_dir, self._step = run_dir, step
        self._writers: dict[str, SummaryWriter] = {}
        if settings:
            self._show_settings({name: plain(value) for name, value in settings.items() if value is not None})

    def _writer(self, folder: str) -> SummaryWriter:
        """That of the training or the validation, opened when it is first needed: TensorBoard lists both."""
        if folder not in self._writers:
            self._writers[folder] = SummaryWriter(str(self._run_dir / folder), purge_step=self._step + 1)
        return self._writers[folder]

    def _show_settings(self, settings: Mapping[str, Any]) -> None:
        rows = [
            f"| {name} | {printable(str(value)).replace('|', '&#124;')} |" for name, value in settings.items()
        ]
        self._writer(TRAINING).add_text(
            "settings", "\n".join(["| setting | value |", "|---|---|", *rows]), self._step
        )
        for summary in _hyperparameters(self._run_dir.name, settings):
            add_summary(self._writer(TRAINING), summary, self._step)

    def write(self, step: int, curves: Mapping[str, float]) -> None:
        """Add the figures of a step, by name."""
        for folder in (TRAINING, VALIDATION):
            # One event for all curves: SummaryWriter.add_scalar writes one for each.
            values = [
                Summary.Value(tag=tag, simple_value=curves[name])
                for name, (where, tag) in _tags(curves)
                if where == folder
            ]
            if values:
                add_summary(self._writer(folder), Summary(value=values), step)

    def show(self, tag: str, path: Path, step: int) -> None:
        """Show a GIF or PNG."""
        show_picture(self._writer(TRAINING), tag, path, step)

    def close(self) -> None:
        """Write out what is buffered and close the files."""
        for writer in self._writers.values():
            writer.close()


def _tags(names: Mapping[str, float]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each name with the folder and the tag of its curve."""
    for name in names:
        if name.startswith(f"{VALIDATION}_") or name.startswith(f"{VALIDATION}/"):
            yield name, (VALIDATION, name[len(VALIDATION) + 1 :])
        else:
            yield name, (TRAINING, name if name in LOSSES else f"training/{name}")


def _hyperparameters(name: str, settings: Mapping[str, Any]) -> list[Summary]:
    """What TensorBoard's HPARAMS reads: which there are, with the figures beside them, and their values."""
    figures = [(folder, tag) for tag in LOSSES for folder in (VALIDATION, TRAINING)]
    experiment = Experiment(
        hparam_infos=[
            HParamInfo(name=each, type=_TYPES[_kind_of(value)]) for each, value in settings.items()
        ],
        metric_infos=[
            MetricInfo(name=MetricName(group=folder, tag=tag), display_name=f"{folder} {tag}".strip())
            for folder, tag in figures
        ],
    )
    start = SessionStartInfo(group_name=name)
    for each, value in settings.items():
        setattr(start.hparams[each], f"{_kind_of(value)}_value", value)
    data = {
        metadata.EXPERIMENT_TAG: HParamsPluginData(experiment=experiment),
        metadata.SESSION_START_INFO_TAG: HParamsPluginData(session_start_info=start),
    }
    return [
        Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(each))])
        for tag, each in data.items()
    ]


def _kind_of(value: bool | float | str) -> str:
    return "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"


def plain(value: Any) -> Any:
    """A setting as trackers take it: a list as a text."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def show_picture(events: SummaryWriter, tag: str, path: Path, step: int) -> None:
    """Show a GIF or PNG in TensorBoard."""
    # As SummaryWriter.add_video does it; that needs moviepy to make the same GIF.
    image = Summary.Image(encoded_image_string=path.read_bytes(), colorspace=1)
    add_summary(events, Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def add_summary(events: SummaryWriter, summary: Summary, step: int) -> None:
    """Write an event."""
    events._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]
