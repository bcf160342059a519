"""What is said of files that are no videos."""

from pathlib import Path

import pytest

from vidlat.pipeline.ignored import describe_ignored, kind_of_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("a.mha", ".mha"), ("A.MHA", ".mha"), ("a.tar.gz", ".tar.gz"), ("a.b.gz", ".gz"), ("a.h5", ".h5")),
        # A UID, a name and a date are no suffixes.
        *(("README", ""), ("1.2.840.10008", ""), ("Smith.John-Anne", ""), ("a.", ""), ("a.verylongword", "")),
    ],
)
def test_kind_of_a_name(name, kind):
    assert kind_of_name(Path(name)) == kind


def test_kinds_are_listed_with_what_to_do():
    ignored = {".mha": 3, ".h5": 2, ".zip": 1, "": 4, ".nrrd": 1, ".txt": 5}
    assert describe_ignored(ignored) == (
        "3 .mha, 1 .nrrd: convert to NIfTI; 2 .h5: save the frames as NPY; 1 .zip: unpack; "
        "5 .txt, 4 without suffix"
    )
    assert describe_ignored({}) == ""


def test_only_known_suffixes_are_named_where_names_are_hidden():
    ignored = {".mha": 3, ".doe": 1, ".jane": 1, "": 4}
    assert describe_ignored(ignored, hide=True) == "3 .mha: convert to NIfTI; 4 without suffix, 2 others"


def test_a_long_list_ends():
    ignored = {f".k{number}": 1 for number in range(30)}
    text = describe_ignored(ignored)
    assert text.count(" .k") == 12
    assert text.endswith(", 18 others")
