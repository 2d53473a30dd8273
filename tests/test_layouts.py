import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from headscope.cohort.filters import parse_where, where_holds
from headscope.cohort.ids import subject_of
from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.cohort.tables import read_any_table
from headscope.errors import InputError
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices
from tests.support.folders import texts, touch


def rows(cohort):
    return [tuple(row) for row in cohort.scans.itertuples(index=False)]


def test_class_folders_take_ids_from_bids_and_oasis_names(tmp_path):
    touch(
        tmp_path,
        "AD/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "AD/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "AD/OAS1_0002_MR1_mpr.hdr",
        "NC/ADNI_002_S_0295_MR_MPR_I40966.nii",
        ".cache/x.nii",
    )
    cohort = find_cohort(tmp_path)
    assert cohort.layout == "class folders"
    assert cohort.class_names == ["AD", "NC"]
    assert not cohort.simulated
    assert rows(cohort) == [
        ("NC/ADNI_002_S_0295_MR_MPR_I40966.nii", "002_S_0295", "1", "NC"),
        ("AD/OAS1_0002_MR1_mpr.hdr", "OAS1_0002", "MR1", "AD"),
        ("AD/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01", "ses-1", "AD"),
        ("AD/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", "sub-01", "ses-2", "AD"),
    ]
    assert texts(cohort)[0] == (
        "class folders: 4 scans of 3 subjects (AD: 3 scans of 2 subjects, NC: 1 scan of 1 subject)."
    )


def test_notes_say_what_they_are_about(tmp_path):
    """A pattern that names subjects leaves nothing out; a table replaces all that ids came from."""
    bids(tmp_path, *(f"sub-{n}/anat/sub-{n}_{scan}" for n in (1, 2, 3) for scan in ("T1w", "T2w")))
    group = pd.DataFrame({"participant_id": ["sub-1", "sub-2"], "Group": ["AD", "NC"]})
    group.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    options = {"label": "Group", "classes": {"AD": ["AD"], "NC": ["NC"]}}
    cohort = find_cohort(tmp_path, subject_pattern="(sub-[0-9])", **options)
    left_out = [note.text for note in cohort.notes if note.about == "left out"]
    assert left_out == [
        "Scans of the suffix T1w are taken, not T2w (3).",
        "1 scan has no value of Group and is left out.",
    ]
    assert [n.text for n in cohort.notes if n.about == "classes"] == [
        "Classes by Group: AD = AD; NC = NC."
    ]
    assert any("not from the layout" in text for text in texts(cohort))
    table = pd.DataFrame({"path": [f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in (1, 2, 3)]})
    table.assign(subject_id=["a", "b", "c"]).to_csv(tmp_path / "who.csv", index=False)
    named = find_cohort(tmp_path, subjects=tmp_path / "who.csv", **options)
    ids = [note.text for note in named.notes if note.about == "ids"]
    assert ids == ["Subject ids come from who.csv: 3 subjects."]


@pytest.mark.parametrize("twin", ["Non-Demented", "non demented", "Non_Demented"])
def test_classes_that_are_written_alike_are_said(tmp_path, twin):
    touch(tmp_path, "NonDemented/sub-1.nii", f"{twin}/sub-2.nii", "AD/sub-3.nii")
    assert any(
        "2 classes differ in upper and lower case, signs" in t for t in texts(find_cohort(tmp_path))
    )


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("P001_m12", "P001"),
        ("P001_baseline", "P001"),
        ("P001-follow-up", "P001"),
        ("P001_scan2_20110304", "P001"),
        ("P001_2011-03-04", "P001"),
        ("subject1_session2", "subject1"),
        ("P001_V02_run-1", "P001"),
        ("P001_m2", "P001_m2"),  # ADNI has no such month
        ("Smith_2011-03-04", "Smith_2011-03-04"),  # the rest may be a site
        ("v2_P001", "v2_P001"),
        ("PPMI_3102_MR_SAG_3D_MPRAGE_br_raw_20110101_1_S10_I200", "PPMI_3102"),
        ("IXI002-Guys-0828-T1", "IXI002"),
        ("TCGA_CS_4941_19960909_12", "TCGA_CS_4941"),
        ("BraTS-GLI-00005-001-t1n", "BraTS-GLI-00005"),
        ("BraTS20_Training_001_flair", "BraTS20_Training_001"),
        ("BraTS19_2013_0_1", "BraTS19_2013_0_1"),
    ],
)
def test_a_subject_is_named_before_its_visits_repeats_and_dates(name, subject):
    assert subject_of(f"{name}.nii.gz", nested=False)[0] == subject


def test_class_folders_without_known_ids_say_so(tmp_path):
    touch(tmp_path, "AD/x.nii", "AD/y.nii.gz", "NC/p/scan.nii", "NC/p/again.nii", "loose.nii")
    cohort = find_cohort(tmp_path)
    assert [row[1:3] for row in rows(cohort)] == [
        ("p", "1-1"),
        ("p", "1-2"),
        ("x", "1"),
        ("y", "1"),
    ]
    notes = " ".join(texts(cohort))
    assert "the folders inside the classes and the whole file name" in notes
    assert "a subject of its own" in notes
    assert "outside class folders: 1 scan." in notes
    assert "2 scans share subject and session" in notes


@pytest.mark.parametrize("name", ["001.nii", "001/scan.nii"])
def test_folders_that_number_their_people_apart_are_refused(tmp_path, name):
    touch(tmp_path, f"AD/{name}", f"NC/{name}", "NC/002.nii")
    with pytest.raises(
        InputError, match=r"the id '001' occurs in several classes, as AD/001.* and"
    ):
        find_cohort(tmp_path)
    cohort = find_cohort(tmp_path, subject_pattern="([0-9]+)")
    assert cohort.scans["subject_id"].tolist() == ["001", "001", "002"]


def test_a_known_form_of_id_may_recur_in_another_class(tmp_path):
    touch(tmp_path, "MCI/OAS1_0001_MR1.nii", "AD/OAS1_0001_MR2.nii")
    assert find_cohort(tmp_path).scans["subject_id"].tolist() == ["OAS1_0001"] * 2


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "has no subject id in 1 row, column 'subject_id', the first in row 3"),
        ("n/a", "has no subject id in 1 row"),
        ("unknown", "the reserved word 'unknown' as subject id in 1 row"),
    ],
)
def test_rows_without_a_subject_are_refused(tmp_path, written, reason):
    touch(tmp_path, "a.nii", "b.nii", "c.nii")
    (tmp_path / "scans.csv").write_text(
        f"path,subject_id,session_id,label\na.nii,1,,AD\nb.nii,{written},,NC\nc.nii,3,2,NC\n"
    )
    with pytest.raises(InputError, match=reason):
        find_cohort(tmp_path)
    (tmp_path / "scans.csv").write_text(
        "path,subject_id,session_id,label\na.nii,1,,AD\nb.nii,2,n/a,NC\nc.nii,3,2,NC\n"
    )
    assert find_cohort(tmp_path).scans["session_id"].tolist() == ["1", "1", "2"]
    (tmp_path / "scans.csv").unlink()
    (tmp_path / "participants.csv").write_text(f"id,dx\na,AD\n{written},NC\nb,NC\n")
    with pytest.raises(InputError, match=reason.replace("subject_id", "id")):
        find_cohort(tmp_path, label="dx")


def test_a_table_of_something_else_does_not_stop_the_rest(tmp_path):
    touch(tmp_path, "AD/a.nii", "NC/b.nii")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2,3\n")
    (tmp_path / "headers.csv").write_text("a,b\n")
    assert find_cohort(tmp_path).layout == "class folders"
    with pytest.raises(InputError, match=r"headers.csv holds no rows"):
        find_cohort(tmp_path, label="dx")
    (tmp_path / "participants.csv").write_text("a,b\n1,2,3\n")
    with pytest.raises(InputError, match=r"participants.csv: row 2 has 3 fields"):
        find_cohort(tmp_path)


def test_a_scan_in_place_of_a_folder_is_said_to_be_one(tmp_path):
    touch(tmp_path, "a.nii.gz")
    with pytest.raises(InputError, match=r"a.nii.gz is one scan: give the folder"):
        find_cohort(tmp_path / "a.nii.gz")


def test_classes_choose_name_and_order_folders(tmp_path):
    touch(tmp_path, "AD/a.nii", "MCI/b.nii", "CN/c.nii")
    cohort = find_cohort(tmp_path, classes={"well": ["CN"], "ill": ["AD"]})
    assert cohort.class_names == ["well", "ill"]
    assert "Left out by class folder: MCI (1 scan)." in texts(cohort)
    with pytest.raises(InputError, match=r"class 'ill' .*Alzheimer.* AD, CN, MCI"):
        find_cohort(tmp_path, classes={"well": ["CN"], "ill": ["Alzheimer"]})
    with pytest.raises(InputError, match=r"'CN' .* is in two classes"):
        find_cohort(tmp_path, classes={"well": ["CN"], "ill": ["AD", "CN"]})


def test_participants_match_whole_ids_only(tmp_path):
    touch(tmp_path, "Subj1_T1.nii", "Subj10_T1.nii", "deep/Subj2/T1.nii.gz", "Subj3_T1.nii")
    (tmp_path / "participants.csv").write_bytes(
        b"\xef\xbb\xbfID;Sex;Age\rSubj1;M;70,5\rSubj10;F;80,0\rSubj2;F;90,25\rSubj4;M;1"
    )
    cohort = find_cohort(tmp_path, label="Sex")
    assert cohort.layout == "participants table"
    assert rows(cohort) == [
        ("Subj1_T1.nii", "Subj1", "1", "M"),
        ("Subj10_T1.nii", "Subj10", "1", "F"),
        ("deep/Subj2/T1.nii.gz", "Subj2", "1", "F"),
    ]
    notes = " ".join(texts(cohort))
    assert "hold no id of participants.csv: 1 scan, the first Subj3_T1.nii" in notes
    assert "Rows of participants.csv without a scan: 1." in notes
    cut = find_cohort(tmp_path, label="Age", threshold=80)
    assert cut.class_names == ["Age<=80", "Age>80"]
    assert cut.scans["label"].tolist() == ["Age<=80", "Age<=80", "Age>80"]
    named = find_cohort(
        tmp_path, label="Age", threshold=80, classes={"old": ["Age>80"], "young": ["Age<=80"]}
    )
    assert named.class_names == ["old", "young"]


def participants(tmp_path, count=12):
    names = [f"sub-{number:02d}" for number in range(count)]
    touch(tmp_path, *(f"{name}_T1w.nii" for name in names))
    lines = [f"{name}\t{number}\t{name}x\tno" for number, name in enumerate(names)]
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsite\tsmoker\n" + "\n".join(lines)
    )
    return tmp_path


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, r"Which column .* holds the classes\? Name it: age, site, smoker"),
        ({"label": "sex"}, "'sex' .* age, site, smoker"),
        ({"label": "age"}, "'age' is numeric, from 0 to 11: .* --threshold"),
        ({"label": "site"}, "'site' has 12 values"),
        ({"label": "site", "threshold": 3}, "'sub-00x' in it is no number"),
        ({"label": "smoker"}, "shows only 'no' in 12 scans: at least two classes"),
        ({"label": "age", "threshold": 99}, "shows only 'age<=99'"),
        ({"plane": "oblique"}, "Unknown plane 'oblique'"),
    ],
)
def test_labels_that_give_no_classes_are_refused(tmp_path, options, reason):
    with pytest.raises(InputError, match=reason):
        find_cohort(participants(tmp_path), **options)


def test_participants_without_label_value_are_left_out(tmp_path):
    participants(tmp_path, 4)
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tdx\nsub-00\tAD\nsub-01\tn/a\nsub-02\tNC\nsub-03\tMCI\n"
    )
    cohort = find_cohort(tmp_path, label="dx", classes={"AD": ["AD"], "NC": ["NC"]})
    assert cohort.scans["subject_id"].tolist() == ["sub-00", "sub-02"]
    assert "1 scan has no value of dx and is left out." in texts(cohort)
    assert "Left out by dx: MCI (1 scan)." in texts(cohort)


def test_one_participant_in_two_rows_is_refused(tmp_path):
    touch(tmp_path, "a_T1.nii", "b_T1.nii")
    (tmp_path / "participants.csv").write_text("id,dx\na,AD\nb,NC\na,NC\n")
    with pytest.raises(InputError, match=r"several rows for 1 participant, the first 'a'"):
        find_cohort(tmp_path, label="dx")


def test_ids_that_match_nothing_are_refused(tmp_path):
    touch(tmp_path, "x_T1.nii")
    (tmp_path / "participants.csv").write_text("id,dx\na,AD\nb,NC\n")
    with pytest.raises(
        InputError, match=r"No column .* the names of the scans contain.*x_T1.nii'.* id, dx"
    ):
        find_cohort(tmp_path, label="dx")


def test_a_table_of_scans(tmp_path):
    touch(tmp_path, "a/1.nii", "a/2.nii", "b.nii", "simulation.json")
    (tmp_path / "scans.tsv").write_text(
        "path\tsubject_id\tsession_id\tlabel\na/1.nii\t007\t1\tAD\na/2.nii\t007\t2\tAD\n"
        "b.nii\t008\t1\tNC\n"
    )
    cohort = find_cohort(tmp_path)
    assert (cohort.layout, cohort.simulated) == ("scan table", True)
    assert rows(cohort) == [
        ("a/1.nii", "007", "1", "AD"),
        ("a/2.nii", "007", "2", "AD"),
        ("b.nii", "008", "1", "NC"),
    ]
    assert rows(find_cohort(tmp_path / "scans.tsv")) == rows(cohort)
    (tmp_path / "b.nii").unlink()
    (tmp_path / "a" / "2.nii").unlink()
    with pytest.raises(InputError, match=r"lists 2 of 3 scans that do not exist, the first 'a/2"):
        find_cohort(tmp_path)
    (tmp_path / "scans.tsv").write_text("file,label\nb.nii,AD\n")
    with pytest.raises(InputError, match=r"lacks the column 'path': it has file, label"):
        find_cohort(tmp_path)


def test_a_table_of_scans_needs_no_ids_but_says_where_they_come_from(tmp_path):
    touch(tmp_path, "sub-1_ses-a.nii", "sub-2_ses-a.nii")
    (tmp_path / "scans.csv").write_text(
        "path,dx\nsub-1_ses-a.nii,AD\nsub-2_ses-a.nii,NC\n", encoding="utf-16"
    )
    cohort = find_cohort(tmp_path, label="dx")
    assert cohort.scans["subject_id"].tolist() == ["sub-1", "sub-2"]
    assert cohort.scans["session_id"].tolist() == ["ses-a", "ses-a"]
    assert any("names no subject_id" in note for note in texts(cohort))


def test_folders_without_a_cohort_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        find_cohort(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no scans"):
        find_cohort(tmp_path)
    touch(tmp_path, "a.nii")
    with pytest.raises(InputError, match=r"neither class folders nor a table"):
        find_cohort(tmp_path)
    with pytest.raises(
        InputError, match=r"no table with the column 'dx': it holds no \.csv or \.tsv\."
    ):
        find_cohort(tmp_path, label="dx")
    touch(tmp_path, "AD/b.nii")
    with pytest.raises(InputError, match=r"shows only 'AD' in 1 scan.*are needed\.$"):
        find_cohort(tmp_path)


@pytest.mark.parametrize("label", [None, "dx"])
def test_a_folder_about_the_cohort_is_said_to_be_one(tmp_path, label):
    bids(tmp_path / "raw", "sub-01/anat/sub-01_T1w", "sub-02/anat/sub-02_T1w")
    with pytest.raises(InputError, match=r"All its scans are in .*/raw: is that the folder"):
        find_cohort(tmp_path, label=label)
    assert find_cohort(tmp_path / "raw", label=label or "sex").scans["label"].nunique() == 2


def test_an_empty_class_and_names_alike_but_for_case_are_said(tmp_path):
    touch(tmp_path, "AD/sub-A1.nii", "AD/sub-x.nii", "NC/sub-a1.nii", "ad/sub-y.nii")
    (tmp_path / "MCI").mkdir()
    (tmp_path / ".hidden").mkdir()
    cohort = find_cohort(tmp_path)
    assert cohort.class_names == ["AD", "NC", "ad"]
    assert texts(cohort)[2:] == [
        "Left out, as they hold no scan: 1 folder, the first MCI.",
        "2 subjects differ in upper and lower case alone and count as 2, the first sub-A1 and "
        "sub-a1.",
        "2 classes differ in upper and lower case alone and count as 2, the first AD and ad.",
    ]
    hidden = pseudonymise_cohort(cohort, tmp_path.parent / "case.key", tmp_path)
    assert not any("-A1" in note or "MCI" in note for note in texts(hidden))


def test_scans_of_one_session_are_named(tmp_path):
    touch(tmp_path, "AD/sub-1_T1w.nii", "AD/sub-1_again.nii", "NC/sub-2_T1w.nii")
    cohort = find_cohort(tmp_path)
    assert texts(cohort)[-1] == (
        "2 scans share subject and session with another: their sessions are numbered, the first "
        "AD/sub-1_T1w.nii and AD/sub-1_again.nii."
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_are_read_however_they_were_written(tmp_path, encoding, end, separator):
    cells = [["id", "naïve name"], ["1", f'"a{separator} b"'], ["", ""], ["02", " x "]]
    text = end.join(separator.join(row) for row in cells)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    table = read_any_table(tmp_path / "t.csv")
    assert table.columns.tolist() == ["id", "naïve name"]
    assert table.to_numpy().tolist() == [["1", f"a{separator} b"], ["02", "x"]]


def test_quotes_may_stand_behind_spaces(tmp_path):
    (tmp_path / "a.csv").write_text('"path" ; "subject_id" \n"s 1.nii" ; "P ""1""; x " \n')
    table = read_any_table(tmp_path / "a.csv")
    assert table.to_dict("records") == [{"path": "s 1.nii", "subject_id": 'P "1"; x'}]


def test_a_ragged_table_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n")
    with pytest.raises(InputError, match=r"row 2 has 3 fields, the header 2"):
        read_any_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(InputError, match=r"holds no rows"):
        read_any_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,a\n1,2\n")
    with pytest.raises(InputError, match=r"names the column 'a' twice"):
        read_any_table(tmp_path / "t.csv")


def oasis2(tmp_path, names):
    touch(tmp_path, *names)
    rows = [
        "Subject ID;MRI ID;Group;CDR",
        "OAS2_0001;OAS2_0001_MR1;Nondemented;0",
        "OAS2_0002;OAS2_0002_MR1;Demented;0,5",
        "OAS2_0002;OAS2_0002_MR2;Demented;1",
        "OAS2_0003;OAS2_0003_MR1;Converted;0,5",
    ]
    (tmp_path / "demographic.csv").write_text("\r".join(rows))
    return tmp_path


def test_oasis2_as_slices_and_as_volumes(tmp_path):
    sessions = ["0001_MR1", "0002_MR1", "0003_MR1"]
    marks = ["axl", "cor", "sag"]
    ready = oasis2(
        tmp_path / "ready", [f"{m}/OAS2_{s}_{m}.nii.gz" for s in sessions for m in marks]
    )
    cohort = find_cohort(ready, plane="coronal")
    assert (cohort.layout, cohort.class_names) == ("OASIS-2", ["AD", "NC"])
    assert rows(cohort) == [
        ("cor/OAS2_0001_MR1_cor.nii.gz", "OAS2_0001", "MR1", "NC"),
        ("cor/OAS2_0002_MR1_cor.nii.gz", "OAS2_0002", "MR1", "AD"),
    ]
    left_out = [note.text for note in cohort.notes if note.about == "left out"]
    assert "Left out by Group: Converted (1 scan)." in left_out
    assert any(text.startswith("Not taken, of other processing or planes") for text in left_out)
    assert any("of the table" in text and "no coronal scan" in text for text in left_out)
    by_cdr = find_cohort(ready, label="CDR", threshold=0)
    assert by_cdr.scans["label"].tolist() == ["CDR<=0", "CDR>0", "CDR>0"]
    whole = oasis2(
        tmp_path / "whole", [f"OAS2_{s}/RAW/mpr-{n}.hdr" for s in sessions for n in (1, 2)]
    )
    assert find_cohort(whole).scans["path"].tolist() == [
        "OAS2_0001_MR1/RAW/mpr-1.hdr",
        "OAS2_0002_MR1/RAW/mpr-1.hdr",
    ]


@pytest.mark.real_data
def test_oasis2_as_it_lies(real_data):
    cohort = find_cohort(real_data / "oasis2")
    assert (len(cohort.scans), cohort.scans["subject_id"].nunique()) == (331, 136)
    assert cohort.scans.groupby("label")["subject_id"].nunique().to_dict() == {"AD": 64, "NC": 72}
    assert any("Converted" in note for note in texts(cohort))
    assert any("5 sessions of the table have no axial scan" in note for note in texts(cohort))
    assert (
        sum(
            len(find_cohort(real_data / "oasis2", plane=p).scans)
            for p in ("axial", "coronal", "sagittal")
        )
        == 1003
    )


@pytest.mark.real_data
def test_nichart_by_sex_and_by_age(real_data):
    table = read_any_table(real_data / "nichart_t1" / "participants.csv").set_index("MRID")
    cohort = find_cohort(real_data / "nichart_t1", label="Sex")
    assert len(cohort.scans) == 23
    for row in cohort.scans.itertuples():
        assert row.path == f"{row.subject_id}_T1.nii.gz"
        assert row.label == table.loc[row.subject_id, "Sex"]
    aged = find_cohort(real_data / "nichart_t1", label="Age", threshold=80)
    older = aged.scans.set_index("subject_id")["label"] == "Age>80"
    np.testing.assert_array_equal(older, table.loc[older.index, "Age"].astype(float) > 80)


def test_a_real_scan_is_not_opened_to_find_the_cohort(tmp_path):
    """Finding a cohort of thousands must stay fast: names and tables are enough."""
    touch(tmp_path, "AD/a.nii", "NC/b.nii")
    with pytest.raises(nib.filebasedimages.ImageFileError):
        nib.load(tmp_path / "AD/a.nii")
    assert len(find_cohort(tmp_path).scans) == 2


def bids(folder, *names, participants="participant_id\tsex\tdx\n01\tF\tAD\nsub-02\tM\tNC\n"):
    touch(folder, *(f"{name}.nii.gz" for name in names))
    if participants:
        (folder / "participants.tsv").write_text(participants)
    return folder


def test_bids_takes_one_t1w_a_session(tmp_path):
    bids(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_acq-hi_run-1_T1w",
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w",
        "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w",
        "sub-01/ses-c/anat/sub-01_ses-c_FLAIR",
        "sub-01/ses-b/func/sub-01_ses-b_bold",
        "sub-02/anat/sub-02_T1w",
        "derivatives/fs/sub-02/anat/sub-02_T1w",
    )
    cohort = find_cohort(tmp_path)
    assert cohort.layout == "BIDS"
    assert rows(cohort) == [
        ("sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz", "sub-01", "ses-a", "AD"),
        ("sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz", "sub-01", "ses-b", "AD"),
        ("sub-02/anat/sub-02_T1w.nii.gz", "sub-02", "1", "NC"),
    ]
    notes = " ".join(texts(cohort))
    assert "Scans of the suffix T1w are taken, not FLAIR (1), T2w (1)." in notes
    assert "1 session holds several T1w: the one of fewest entities" in notes
    assert "Sessions without a T1w, left out: 1." in notes
    by_sex = find_cohort(tmp_path, label="sex", keep=["dx"])
    assert by_sex.class_names == ["F", "M"]
    assert by_sex.scans["dx"].tolist() == ["AD", "AD", "NC"]


def test_bids_without_t1w_takes_the_most_frequent_suffix(tmp_path):
    bids(tmp_path, "sub-01/anat/sub-01_T2w", "sub-02/anat/sub-02_T2w", "sub-02/anat/sub-02_PDw")
    assert [row[0] for row in rows(find_cohort(tmp_path))] == [
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
    ]


def test_labels_of_bids_sessions_win_over_those_of_participants(tmp_path):
    visits = [f"sub-{n}/ses-{v}/anat/sub-{n}_ses-{v}_T1w" for n in ("01", "02") for v in (1, 2)]
    bids(tmp_path, *visits)
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tdx\tage\nses-1\tNC\t70\n2\tn/a\t72\n"
    )
    cohort = find_cohort(tmp_path, where="sex == F")
    assert cohort.scans[["session_id", "label"]].to_numpy().tolist() == [
        ["ses-1", "NC"],
        ["ses-2", "AD"],
    ]
    assert "Labels of sessions come from sessions.tsv: dx, age." in texts(cohort)
    with pytest.raises(InputError, match=r"several rows of sessions.tsv for sub-01, ses-2"):
        (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tdx\n2\tNC\nses-2\tAD")
        find_cohort(tmp_path)


def test_bids_subjects_without_a_row_have_no_label(tmp_path):
    bids(tmp_path, *(f"sub-{n:02d}/anat/sub-{n:02d}_T1w" for n in (1, 2, 3)))
    cohort = find_cohort(tmp_path, label="sex", where="sex != X")
    assert cohort.scans["subject_id"].tolist() == ["sub-01", "sub-02"]
    found = find_cohort(tmp_path, label="sex")
    assert texts(found)[-1] == "1 scan has no value of sex and is left out."


def test_bids_of_a_single_sessions_table_or_none(tmp_path):
    visits = [f"sub-{n}/ses-1/anat/sub-{n}_ses-1_T1w" for n in ("01", "02")]
    bids(tmp_path, *visits, participants=None)
    with pytest.raises(InputError, match=r"neither participants.tsv nor sessions.tsv"):
        find_cohort(tmp_path)
    (tmp_path / "sessions.tsv").write_text(
        "participant_id\tsession_id\tgroup\n01\t1\tAD\n02\t1\tNC\n"
    )
    assert [row[3] for row in rows(find_cohort(tmp_path))] == ["AD", "NC"]


def oasis1(folder, cdr, kinds=("mpr_n4_anon_111_t88_masked_gfc", "mpr_n4_anon_111_t88_gfc")):
    lines = ["ID,M/F,Hand,Age,CDR,Delay"]
    for number, (session, value) in enumerate(cdr.items()):
        place = f"disc{1 + number // 3}/{session}"
        touch(folder, f"{place}/RAW/{session}_mpr-1_anon.hdr", f"{place}/{session}.txt")
        for kind in kinds:
            name = f"{place}/PROCESSED/MPRAGE/T88_111/{session}_{kind}"
            touch(folder, f"{name}.hdr", f"{name}.img")
        lines.append(f"{session},{'MF'[number % 2]},R,{60 + number},{value},N/A")
    (folder / "oasis_cross-sectional.csv").write_text("\n".join(lines))
    return folder


CDR = {
    "OAS1_0001_MR1": "0",
    "OAS1_0002_MR1": "",
    "OAS1_0003_MR1": "0.5",
    "OAS1_0003_MR2": "0.5",
    "OAS1_0004_MR1": "2",
}


def test_oasis1_takes_the_masked_average_and_classes_by_cdr(tmp_path):
    cohort = find_cohort(oasis1(tmp_path, CDR))
    assert (cohort.layout, cohort.class_names) == ("OASIS-1", ["AD", "NC"])
    end = "PROCESSED/MPRAGE/T88_111/{}_mpr_n4_anon_111_t88_masked_gfc.hdr"
    assert rows(cohort) == [
        (f"disc{disc}/{name}/{end.format(name)}", name[:9], name[10:], label)
        for disc, name, label in (
            (1, "OAS1_0001_MR1", "NC"),
            (1, "OAS1_0003_MR1", "AD"),
            (2, "OAS1_0003_MR2", "AD"),
            (2, "OAS1_0004_MR1", "AD"),
        )
    ]
    notes = " ".join(texts(cohort))
    assert "1 scan has no value of CDR and is left out." in notes
    assert "1 rescan (MR2) count as sessions of the same subject" in notes
    assert "t88_masked_gfc (5)" in notes
    women = find_cohort(tmp_path, label="M/F", where="Age >= 61 and Age < 64 and Hand == R")
    assert women.scans["label"].tolist() == ["F", "M", "F"]


def test_oasis1_falls_back_and_names_its_missing_table(tmp_path):
    oasis1(tmp_path, CDR, kinds=())
    assert all("/RAW/" in row[0] for row in rows(find_cohort(tmp_path)))
    (tmp_path / "oasis_cross-sectional.csv").unlink()
    with pytest.raises(InputError, match="is laid out as OASIS-1 but lacks its table"):
        find_cohort(tmp_path)


def write_volume(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(seed).integers(0, 200, (12, 14, 16)).astype(np.uint8)
    kind = nib.AnalyzeImage if path.suffix == ".hdr" else nib.Nifti1Image
    nib.save(kind(volume, np.diag([3, 3, 3, 1])), path)


@pytest.mark.parametrize("layout", ["BIDS", "OASIS-1"])
def test_recognised_layouts_are_sliced(tmp_path, layout):
    if layout == "BIDS":
        bids(tmp_path / "data", *(f"sub-{n:02d}/anat/sub-{n:02d}_T1w" for n in (1, 2)))
    else:
        oasis1(tmp_path / "data", CDR)
    cohort = find_cohort(tmp_path / "data", plane="all")
    for number, name in enumerate(cohort.scans["path"]):
        write_volume(tmp_path / "data" / name, number)
    stored = write_slices(
        cohort, tmp_path / "out", SliceSpec(plane="all", count=3, size=32), workers=1
    )
    assert len(stored.pixels) == 9 * len(cohort.scans)
    assert stored.table.groupby("plane").size().tolist() == [3 * len(cohort.scans)] * 3


def test_a_scan_table_may_name_planes(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "c.nii")
    (tmp_path / "scans.csv").write_text(
        "path,subject_id,label,plane\na.nii,1,x,axial\nb.nii,2,y,axial\nc.nii,2,y,coronal\n"
    )
    cohort = find_cohort(tmp_path)
    assert cohort.scans["path"].tolist() == ["a.nii", "b.nii"]
    assert "Left out, as they are not axial: 1 scan." in texts(cohort)
    assert find_cohort(tmp_path, plane="all").scans["plane"].tolist() == [
        "axial",
        "axial",
        "coronal",
    ]
    with pytest.raises(InputError, match=r"shows none: at least two|plane"):
        find_cohort(tmp_path, plane="sagittal")


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("Age > 60", [("Age", ">", "60")]),
        ("Age>60 and M/F==F", [("Age", ">", "60"), ("M/F", "==", "F")]),
        ("Subject ID != OAS2_0001", [("Subject ID", "!=", "OAS2_0001")]),
        ("'Subject ID' = \"a and b\"", [("Subject ID", "=", "a and b")]),
        ('`x>y` <= 3 AND "q" >= 4,5', [("x>y", "<=", "3"), ("q", ">=", "4,5")]),
        ("Hand == left and right", None),
        ("brand == A and handed == R", [("brand", "==", "A"), ("handed", "==", "R")]),
        ("site == Land's End", [("site", "==", "Land's End")]),
        ("Age", None),
        ("", None),
        ("Age > 60 and", [("Age", ">", "60 and")]),  # which is no number, and said to be none
        ("__import__('os').system('x')", None),
    ],
)
def test_conditions_are_read(text, conditions):
    if conditions is None:
        with pytest.raises(InputError, match="--where takes COLUMN OP VALUE joined by 'and'"):
            parse_where(text)
    else:
        assert parse_where(text) == conditions


def test_conditions_compare_numbers_as_numbers_and_texts_as_texts():
    table = pd.DataFrame(
        {
            "Age": ["9", "70,5", "n/a", "80"],
            "M/F": ["F", "M", "F", ""],
            "id": ["007", "7", "x", "7.0"],
        }
    )
    for text, expected in {
        "Age > 10": [0, 1, 0, 1],
        "Age <= 70.5": [1, 1, 0, 0],
        "Age != 9": [0, 1, 0, 1],
        "M/F == F": [1, 0, 1, 0],
        "M/F != F": [0, 1, 0, 0],
        "Age == 9.0 and M/F = F": [1, 0, 0, 0],
        "id == 007": [1, 0, 0, 0],  # ids with letters among them are text
    }.items():
        assert where_holds(table, text).tolist() == [bool(n) for n in expected], text
    with pytest.raises(InputError, match="names no column 'Sex': there are Age, M/F, id"):
        where_holds(table, "Sex == F")
    with pytest.raises(InputError, match="'x' is no number to compare with"):
        where_holds(table, "id > 3")
    with pytest.raises(InputError, match="'old' is no number to compare with"):
        where_holds(table, "Age > old")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ('data = "../scans"', ", {root}/scans"),
        ('data = "/elsewhere/scans"', ", /elsewhere/scans"),
        ("epochs = 3", ""),  # pseudonyms hide where the scans are
        ("data = [", ""),  # damaged
    ],
)
def test_an_experiment_given_as_scans_is_refused(tmp_path, settings, named):
    """Its thumbnails and slices are no pictures of a cohort; its own scans are named."""
    touch(tmp_path, "first/runs/a/run.toml", "first/AD/sub-1.png", "first/NC/sub-2.png")
    assert len(find_cohort(tmp_path / "first").scans) == 2  # no experiment without its settings
    (tmp_path / "first" / "experiment.toml").write_text(settings)
    with pytest.raises(InputError) as caught:
        find_cohort(tmp_path / "first")
    scans = named.format(root=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'first'} is an experiment, which holds results: give its scans{scans}."
    )


def test_scans_in_which_an_experiment_was_made_are_still_scans(tmp_path):
    touch(tmp_path, "AD/sub-1.nii", "NC/sub-2.nii", "runs/a/run.toml")
    (tmp_path / "experiment.toml").write_text('data = "."')
    assert find_cohort(tmp_path).class_names == ["AD", "NC"]


@pytest.mark.real_data
def test_oasis2_of_all_planes_and_by_condition(real_data):
    cohort = find_cohort(real_data / "oasis2", plane="all")
    assert len(cohort.scans) == 1003
    assert cohort.scans.groupby("plane").size().to_dict() == {
        "axial": 331,
        "coronal": 336,
        "sagittal": 336,
    }
    assert not cohort.scans.duplicated(["subject_id", "session_id", "plane"]).any()
    old = find_cohort(real_data / "oasis2", where="Age > 75 and M/F == F", keep=["Age", "M/F"])
    assert set(old.scans["M/F"]) == {"F"}
    assert old.scans["Age"].astype(float).min() > 75
