"""Files beside the videos that are none, by the ends of their names, and what makes videos of known kinds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vidlat.wording import format_count

_TO_NIFTI, _TO_NPY, _UNPACK = "convert to NIfTI", "save the frames as NPY", "unpack"
_ADVICE = {
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".img", ".hdr", ".mnc"), _TO_NIFTI),
    **dict.fromkeys((".mat", ".h5", ".hdf5", ".pt", ".pkl", ".raw"), _TO_NPY),
    **dict.fromkeys(
        (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"), _UNPACK
    ),
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_MOST_LETTERS = 8
_MOST_KINDS = 12


def kind_of_name(path: Path) -> str:
    """The suffix of a name in lower case, both of `.tar.gz`; empty where there is none, or only a number."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _COMPRESSED and "".join(suffixes[-2:]) in _ADVICE:
        return "".join(suffixes[-2:])
    is_suffix = suffix[1:].isalnum() and not suffix[1:].isdigit() and len(suffix) <= _MOST_LETTERS
    return suffix if is_suffix else ""


def describe_ignored(ignored: Mapping[str, int], *, hide: bool = False) -> str:
    """Such as `2 .mha: convert to NIfTI; 1 .zip: unpack; 3 .txt, 1 without suffix`.

    hide: name none but the known suffixes, since others may be parts of names.
    """
    groups: dict[str, list[str]] = {}
    num_others = 0
    for number, (suffix, count) in enumerate(sorted(ignored.items(), key=lambda kind: (-kind[1], kind[0]))):
        if number >= _MOST_KINDS or (hide and suffix and suffix not in _ADVICE):
            num_others += count
        else:
            groups.setdefault(_ADVICE.get(suffix, ""), []).append(f"{count} {suffix or 'without suffix'}")
    rest = groups.pop("", [])
    if num_others:
        rest.append(format_count(num_others, "other"))
    known = [f"{', '.join(kinds)}: {advice}" for advice, kinds in groups.items()]
    return "; ".join(known + ([", ".join(rest)] if rest else []))
