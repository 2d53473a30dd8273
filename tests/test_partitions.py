"""Folders that are no classes: subsets of a given partition, planes, contrasts, wrappers."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headscope.auditing.audit import VALIDATION_LATER, _note_given
from headscope.auditing.inspect import inspect_data
from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.experiment.config import make_config
from headscope.experiment.run import run
from headscope.record import read_experiment
from headscope.scans.naming import subset_of
from headscope.splits.assign import complete_given
from headscope.splits.files import check_given, ensure_split
from tests.support.experiments import settings
from tests.support.folders import texts, touch

CLASSES = ("glioma", "healthy")


def pictures(folder, *places, ids=3):
    """Empty pictures of subjects in every place, which holds {label}."""
    for number, place in enumerate(places):
        for label in CLASSES:
            names = (f"sub-{label[0]}{number}{n}.jpg" for n in range(ids))
            touch(folder, *(f"{place.format(label=label)}/{name}" for name in names))
    return folder


@pytest.mark.parametrize(
    ("places", "subsets"),
    [
        (("train/{label}", "test/{label}"), {"train", "test"}),
        (("Training/{label}", "Testing/{label}"), {"train", "test"}),
        (("TRAIN/{label}", "val/{label}", "Test/{label}"), {"train", "val", "test"}),
        (("Train Set/{label}", "Test Set/{label}", "valid/{label}"), {"train", "val", "test"}),
        (("train_data/{label}", "testset/{label}", "Validation/{label}"), {"train", "val", "test"}),
        (("{label}/train", "{label}/test"), {"train", "test"}),
        (("Data_Training/{label}/x", "Data_Testing/{label}/x"), {"train", "test"}),
        (("train/images/{label}", "test/images/{label}"), {"train", "test"}),
    ],
)
def test_a_given_partition_is_no_class(tmp_path, places, subsets):
    cohort = find_cohort(pictures(tmp_path, *places))
    assert cohort.class_names == ["glioma", "healthy"]
    assert set(cohort.scans["given"]) == subsets
    assert any(note.startswith("Given partition: train 6 scans of 6") for note in texts(cohort))
    assert inspect_data(tmp_path).classes["scans"].tolist() == [3 * len(places)] * 2


@pytest.mark.parametrize(
    ("folder", "subset"),
    [
        ("Train", "train"),
        ("MICCAI_BraTS_2018_Data_Training", "train"),
        ("imagesTs", "test"),
        ("holdout", "test"),
        ("dev", "val"),
        ("validation_set", "val"),
        ("trainval_test", None),
        ("Trained", None),
        ("AD", None),
        ("contest", None),
    ],
)
def test_which_folders_name_subsets(folder, subset):
    result = subset_of(folder)
    assert (result and result[0]) == subset


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (("train_{label}", "test_{label}"), "name subsets and classes in one"),
        (("train/{label}", "test/{label}", "more/{label}"), "beside more: put the class folders"),
        (("{label}", "test/{label}"), r"test is named as a part .* --classes glioma=glioma"),
    ],
)
def test_folders_that_mix_subsets_with_others_are_refused(tmp_path, places, reason):
    pictures(tmp_path, *places)
    for read in (find_cohort, inspect_data):
        with pytest.raises(InputError, match=reason):
            read(tmp_path)


def test_a_class_may_be_called_test_where_it_is_chosen(tmp_path):
    touch(tmp_path, "Control/sub-1.jpg", "Test/sub-2.jpg")
    cohort = find_cohort(tmp_path, classes={"NC": ["Control"], "AD": ["Test"]})
    assert cohort.scans["label"].tolist() == ["NC", "AD"]


@pytest.mark.parametrize(
    "places",
    [
        ("OriginalDataset/{label}", "AugmentedAlzheimerDataset/{label}"),
        ("images/{label}", "masks/{label}"),
        ("{label}/images", "{label}/masks"),
        ("{label}", "augmented/{label}"),
        ("T1/{label}", "labels/{label}"),
    ],
)
def test_copies_and_masks_beside_the_scans_are_left_out(tmp_path, places):
    cohort = find_cohort(pictures(tmp_path, *places))
    assert cohort.class_names == ["glioma", "healthy"]
    assert len(cohort.scans) == 6
    assert any(note.startswith("Left out by their names: ") for note in texts(cohort))


def test_planes_and_contrasts_are_no_classes(tmp_path):
    data = pictures(tmp_path / "planes", "axial/{label}", "Coronal/{label}")
    cohort = find_cohort(data, plane="coronal")
    assert set(cohort.scans["plane"]) == {"coronal"}
    assert "Left out, as they are not coronal: 6 scans." in texts(cohort)
    names = [f"{c}/{x}/s{x[0]}{n}.nii" for c in ("T1", "T2") for x in CLASSES for n in range(2)]
    cohort = find_cohort(touch(tmp_path / "contrasts", *names))
    assert (cohort.class_names, cohort.scans["subject_id"].nunique()) == (["glioma", "healthy"], 4)
    chosen = find_cohort(tmp_path / "contrasts", contrast="t1")
    assert (chosen.class_names, len(chosen.scans)) == (["glioma", "healthy"], 4)
    names = [f"IXI-{c}/IXI{n}-{c}.nii" for c in ("T1", "T2") for n in range(3)]
    ixi = touch(tmp_path / "ixi", *names)
    assert find_cohort(ixi, need_classes=False).scans["subject_id"].nunique() == 3
    with pytest.raises(InputError, match=r"contrasts: IXI-T1, IXI-T2; if these are the classes"):
        find_cohort(ixi)
    classes = {"a": ["IXI-T1"], "b": ["IXI-T2"]}
    chosen = find_cohort(ixi, classes=classes, subject_pattern="(IXI[0-9])-")
    assert chosen.class_names == ["a", "b"]
    names = [f"{x}/{x}{n}_{c}/v.nii" for c in ("T1", "T2") for x in "AB" for n in range(3)]
    folders = find_cohort(touch(tmp_path / "folders", *names))
    assert folders.scans["subject_id"].nunique() == 6
    classes = touch(tmp_path / "classes", "PD/a/x1.nii", "CT/b/x2.nii")
    assert find_cohort(classes).class_names == ["CT", "PD"]


@pytest.mark.parametrize("places", [("all/{label}",), ("a/b/train/{label}", "a/b/test/{label}")])
def test_inspect_names_a_folder_around_everything_as_run_does(tmp_path, places):
    pictures(tmp_path, *places)
    touch(tmp_path, "b/c.mha")
    inner = "all" if len(places) == 1 else "a/b"
    for read in (find_cohort, inspect_data):
        with pytest.raises(InputError, match=rf"{inner}: is that the folder to give\? .*1 \.mha"):
            read(tmp_path)


def test_folders_that_are_the_same_in_every_class_are_said(tmp_path):
    pictures(tmp_path, "site1/{label}", "site2/{label}")
    note = next(note for note in texts(find_cohort(tmp_path)) if "the same folders" in note)
    assert "glioma, healthy" in note
    touch(tmp_path / "more", *(f"site{s}/{c}/{c}{s}.nii" for s in "12" for c in CLASSES))
    with pytest.raises(InputError, match=r"in several classes.*holds the same folders, glioma"):
        find_cohort(tmp_path / "more")


def test_a_column_may_give_the_partition(tmp_path):
    touch(tmp_path, *(f"{n}.nii" for n in range(4)))
    rows = "0.nii,a,x,train\n1.nii,b,y,Training\n2.nii,c,x,test\n3.nii,d,y,test\n"
    (tmp_path / "scans.csv").write_text(f"path,subject_id,label,split\n{rows}")
    cohort = find_cohort(tmp_path)
    assert cohort.scans["given"].tolist() == ["train", "train", "test", "test"]
    assert "The column split names the subsets of a given partition." in texts(cohort)


def given_notes(cohort):
    said = ("Given partition: ", "several of its subsets")
    return [text for text in texts(cohort) if any(part in text for part in said)]


def test_the_notes_say_what_a_given_partition_holds_and_lacks(tmp_path):
    """As cohorts are distributed: folders train and test, without ids, a class, or validation."""
    whole = pictures(tmp_path / "whole", "train/{label}", "val/{label}", "test/{label}")
    (text,) = given_notes(find_cohort(whole))
    assert text == (
        "Given partition: train 6 scans of 6 subjects, val 6 scans of 6 subjects, test 6 scans of "
        "6 subjects; --splits given uses it."
    )
    two = pictures(tmp_path / "two", "Training/{label}", "Testing/{label}")
    (text,) = given_notes(find_cohort(two))
    assert text.endswith("Validation is then drawn from train, by subject.")
    names = (
        f"{part}/{label}/{n}.jpg" for part in ("train", "test") for label in "AB" for n in "12"
    )
    nameless = find_cohort(touch(tmp_path / "nameless", *names))
    assert given_notes(nameless)[0].endswith("Validation is then drawn from train, by slice.")
    touch(two, "Training/glioma/sub-g10.jpg", "Training/healthy/sub-h10.jpg")
    assert given_notes(find_cohort(two))[1:] == [
        "2 subjects are in several of its subsets: its accuracy says nothing about new subjects."
    ]
    for name in ("sub-h00", "sub-h01", "sub-h02"):
        (whole / "val" / "healthy" / name.replace("h0", "h1")).with_suffix(".jpg").unlink()
    (text,) = given_notes(find_cohort(whole))
    assert text.endswith("It needs each class in each subset, and val has no healthy.")
    with pytest.raises(InputError, match="leaves the subset val without the class 'healthy'"):
        check_given(find_cohort(whole).scans, (5, 2, 3))


def test_an_audit_says_that_validation_is_drawn_later():
    """Its duplicates are those beside all of training, of which a run takes some for validation."""
    table, given = slices()
    split = table.assign(subset=given)
    assert _note_given(split) == [VALIDATION_LATER]
    assert _note_given(split.assign(subset="val")) == _note_given(None) == []


def slices(subjects=(6, 4), shared=0, ids=True):
    """Three slices of each subject and class, and the subset of each."""
    rows = [
        (f"sub-{label}{n + (start - shared if part else 0)}" if ids else "unknown", part, label, k)
        for part, count in enumerate(subjects)
        for start in [subjects[0]]
        for label in "AB"
        for n in range(count)
        for k in range(3)
    ]
    table = pd.DataFrame(rows, columns=["subject_id", "part", "label", "slice_index"])
    table = table.assign(session_id="1", plane="axial", slice_index=np.arange(len(table)))
    return table, np.array(["train", "test"])[table.pop("part")]


def test_validation_is_drawn_by_subject_where_none_is_given(tmp_path):
    table, given = slices(shared=1)
    subset = complete_given(table, given, seed=3)
    np.testing.assert_array_equal(subset == "test", given == "test")
    training = table[given == "train"].assign(subset=subset[given == "train"])
    assert training.groupby("subject_id")["subset"].nunique().eq(1).all()
    drawn = training[training["subset"] == "val"].groupby("label")["subject_id"].nunique()
    assert drawn.to_dict() == {"A": 2, "B": 1}  # 2/7 of twelve, divided between two classes
    assert (subset == complete_given(table, given, seed=3)).all()
    assert (subset != complete_given(table, given, seed=4)).any()
    stored = ensure_split(tmp_path / "given.tsv", table, kind="given", given=given, seed=3)
    np.testing.assert_array_equal(stored, subset)
    again = ensure_split(tmp_path / "given.tsv", table, kind="given", given=given, seed=3)
    np.testing.assert_array_equal(again, subset)
    with pytest.raises(InputError, match=r"differs from the folders of the data"):
        ensure_split(tmp_path / "given.tsv", table, kind="given", given=given, seed=4)


def test_a_partition_with_validation_is_taken_as_it_is():
    table, given = slices()
    given = np.where((given == "train") & table["subject_id"].str.endswith("5"), "val", given)
    np.testing.assert_array_equal(complete_given(table, given), given)


def test_pictures_without_subjects_are_drawn_one_by_one():
    table, given = slices(ids=False)
    subset = complete_given(table, given)
    assert (subset == "val").sum() == 10  # 2/7 of 36


def test_partitions_that_cannot_be_a_split_are_refused():
    table, given = slices()
    with pytest.raises(InputError, match=r"no folder names the subset train"):
        check_given(table, (5, 2, 3))
    with pytest.raises(InputError, match=r"no folder names the subset test"):
        check_given(table.assign(given="train"), (5, 2, 3))
    with pytest.raises(InputError, match=r"3 have none"):
        some = np.where(table["subject_id"] == "sub-A0", None, given)
        check_given(table.assign(given=some), (5, 2, 3))
    with pytest.raises(InputError, match=r"partition leaves the subset test without the class 'B'"):
        rows = (given == "train") | (table["label"] == "A")
        check_given(table[rows].assign(given=given[rows]), (5, 2, 3))
    with pytest.raises(InputError, match=r"its class A has one subject only"):
        rows = (given == "test") | ~table["subject_id"].isin([f"sub-A{n}" for n in range(1, 6)])
        check_given(table[rows].assign(given=given[rows]), (5, 2, 3))
    with pytest.raises(InputError, match="Folds and the split 'given' exclude each other"):
        make_config(data="x", splits=["given"], folds=3)


@pytest.mark.usefixtures("few_trees")
def test_a_run_follows_the_given_partition_and_says_who_is_shared(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for part, numbers in (("Training", range(4)), ("Testing", range(3, 6))):
        for label in CLASSES:
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for n in numbers:
                picture = Image.fromarray(rng.integers(0, 255, (32, 32)).astype(np.uint8))
                name = f"sub-{label[0]}{n}_{part[1]}.png"
                picture.save(tmp_path / "data" / part / label / name)
    quick = {"regimes": ["frozen"], "splits": ["given"], "epochs": 1}
    out = run(settings(tmp_path / "data", tmp_path / "out", **quick))
    assert "2 subjects are in several of its subsets" in capsys.readouterr().err.replace("\n", " ")
    predictions = read_experiment(out)[0].predictions
    tested = predictions.query("subset == 'test'")["subject_id"]
    assert set(tested) == {f"sub-{c}{n}" for c in "gh" for n in (3, 4, 5)}
    assert predictions["subset"].value_counts().to_dict() == {"test": 6, "train": 6, "val": 2}
    audit = (out / "audit.json").read_text()
    assert "as the given partition has it" in audit
