"""Labels of CAMUS as it is published: a folder for each patient, a file of labels for each view."""

import pytest

from vidlat.errors import InputError
from vidlat.labels.reading import read_labels
from vidlat.types import Annotation


@pytest.fixture
def camus(tmp_path):
    for patient, ef in (("patient0001", "52.4"), ("patient0002", "38")):
        folder = tmp_path / "camus" / patient
        folder.mkdir(parents=True)
        for view in ("2CH", "4CH"):
            for ending in ("half_sequence", "half_sequence_gt", "ED", "ED_gt"):
                (folder / f"{patient}_{view}_{ending}.nii.gz").touch()
            (folder / f"Info_{view}.cfg").write_text(
                f"ED: 1\nES: 18\nNbFrame: 18\nSex: F\nAge: 56\nImageQuality: Good\nEF: {ef}\nFrameRate: \n"
            )
    return tmp_path / "camus"


def test_each_video_has_the_labels_of_its_view_and_its_patient_as_subject(camus):
    labels = read_labels(camus)
    assert sorted(labels) == [
        f"{patient}/{patient}_{view}_{ending}.nii.gz"
        for patient in ("patient0001", "patient0002")
        for view in ("2CH", "4CH")
        for ending in ("ED", "half_sequence")
    ]
    common = {"ED": "1", "ES": "18", "NbFrame": "18", "Sex": "F", "Age": "56", "ImageQuality": "Good"}
    assert labels["patient0002/patient0002_4CH_half_sequence.nii.gz"] == Annotation(
        "patient0002", {"view": "4CH", **common, "EF": "38"}
    )


def test_the_folder_of_one_patient_tells_the_patient_too(camus):
    labels = read_labels(camus / "patient0001")
    assert labels["patient0001_2CH_ED.nii.gz"].subject == "patient0001"


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is a folder, and none of CAMUS, where Info_\*\.cfg lies beside"):
        read_labels(tmp_path)


def test_a_file_of_labels_that_is_no_text_is_named(camus):
    (camus / "patient0001" / "Info_2CH.cfg").write_bytes(b"EF: \xff")
    with pytest.raises(InputError, match=r"Info_2CH\.cfg: cannot be read as text in UTF-8"):
        read_labels(camus)
