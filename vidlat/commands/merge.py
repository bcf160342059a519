"""`vidlat merge`: makes one cache of several that were encoded apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from vidlat.commands.display import (
    MAX_NAMES,
    console,
    echo,
    format_names,
    print_table,
    progress_bar,
)
from vidlat.errors import ExitCode
from vidlat.store.copying.merge import MergedPart, merge_caches
from vidlat.store.copying.merge_plan import MergePlan
from vidlat.wording import format_count


def merge(parts: tuple[str | Path, ...], out: Path) -> ExitCode:
    """Merge the parts and print what each gave."""
    merged: list[MergedPart] = []
    try:
        plan = _merge(parts, out, merged)
    except KeyboardInterrupt:
        safe = f"{len(merged)} of {format_count(len(parts), 'cache')}"
        echo(f"Interrupted: {safe} merged and safe in {out}; the same command continues.", err=True)
        return ExitCode.INTERRUPTED
    _print_parts(out, merged)
    _print_notes(plan, merged)
    return ExitCode.DONE


def _merge(parts: Sequence[str | Path], out: Path, merged: list[MergedPart]) -> MergePlan:
    """Merge with a progress bar, adding to `merged` what each part gave; returns the plan."""
    with progress_bar("{task.fields[name]}") as progress, closing(merge_caches(parts, out)) as events:
        plan = next(events).plan
        assert plan
        task = progress.add_task("merging shards", total=plan.num_files, name="")
        for event in events:
            if event.merged:
                merged.append(event.merged)
            if event.num_files:
                progress.update(task, advance=event.num_files, name=str(parts[len(merged)]))
    return plan


def _print_parts(out: Path, merged: Sequence[MergedPart]) -> None:
    columns = ("cache", "videos added", "there already", "failures", "shard files linked", "copied")
    numbers = (
        (part.num_videos, part.num_skipped, part.num_failures, part.num_linked, part.num_copied)
        for part in merged
    )
    rows = [(str(part.path), *map(str, row)) for part, row in zip(merged, numbers, strict=True)]
    print_table(f"Merged into {out}", columns, rows)


def _print_notes(plan: MergePlan, merged: Sequence[MergedPart]) -> None:
    """What a user may not expect, a line each."""
    if why := next((part.why_copied for part in merged if part.why_copied), ""):
        _note(f"shards were copied, since they could not be linked ({why})")
    if plan.same_content:
        number = format_count(len(plan.same_content), "content")
        examples = "; ".join(map(format_names, plan.same_content[:MAX_NAMES]))
        more = "; ..." if len(plan.same_content) > MAX_NAMES else ""
        _note(f"{number} under several ids, all of which stay: {examples}{more}")
    if plan.dropped:
        _note(f"left out, since {plan.out} has dropped them: {format_names(plan.dropped)}")
    for name, others in plan.kept.items():
        value = getattr(plan.schema, name)
        _note(
            f"{name}: {value!r} is kept, of {plan.first}; another in {format_names(list(map(str, others)))}"
        )


def _note(text: str) -> None:
    console.print(text, soft_wrap=True)
