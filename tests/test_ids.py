"""Whose scan is it, and which row: ids in tables, names and patterns, as public data have them."""

from unicodedata import normalize

import pandas as pd
import pytest

from headscope.cli.options import class_values
from headscope.cohort.joining.columns import role_of
from headscope.cohort.joining.matching import Names, match_sessions, match_values, rename_ids
from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.cohort.tables import MISSING, read_any_table
from headscope.errors import InputError
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import open_slices
from headscope.slicing.write import write_slices
from tests.test_layouts import bids, texts, touch, write_volume

VISITS = (("bl", "2006-04-18_08_20_30.0"), ("m06", "2006-11-02_09_00_00.0"))


def cohort(folder, names, table=None, name="table.csv", encoding="utf-8", **options):
    """The cohort of empty files and a table: a header and rows of cells, or its text."""
    touch(folder, *names)
    if table is not None:
        text = table if isinstance(table, str) else "\n".join(map(",".join, table)) + "\n"
        (folder / name).write_text(text, encoding=encoding)
    return find_cohort(folder, **options)


def subjects(cohort):
    return dict(zip(cohort.scans["path"], cohort.scans["subject_id"], strict=True))


def labels(cohort):
    return dict(zip(cohort.scans["path"], cohort.scans["label"], strict=True))


def group(subject):
    return "AD" if subject % 2 else "CN"


def adni(folder, *, listed=None, **options):
    """The search table of ADNI's archive beside its folders; the image comes before the subject."""
    header = "Image Data ID,Subject,Group,Sex,Age,Visit,Modality,Description,Type,Acq Date,Format"
    names, rows = [], [[*header.split(","), "Downloaded"]]
    for subject in range(12):
        ptid = f"{subject + 2:03d}_S_{1000 + 37 * subject}"
        for number, (visit, date) in enumerate(VISITS):
            image = f"I{36000 + 13 * (2 * subject + number)}"
            names.append(f"ADNI/{ptid}/MPRAGE/{date}/{image}/ADNI_{ptid}_MR_MPRAGE_{image}.nii")
            traits = [group(subject), "MF"[subject % 3 == 0], str(70 + number), visit]
            rows.append(
                [image, ptid, *traits, "MRI", "MPRAGE", "Original", "4/18/2006", "NiFTI", ""]
            )
    rows += [["I9", "999_S_9999", "AD", "F", "80", "bl", "MRI", "MPRAGE", "", "", "NiFTI", ""]]
    return cohort(folder, names, [[f'"{cell}"' for cell in row] for row in rows], **options)


def test_the_search_table_of_adni_gives_subjects_images_and_visits(tmp_path):
    scans = adni(tmp_path, label="Group")
    assert scans.scans["subject_id"].nunique() == 12
    assert all(subject in path for path, subject in subjects(scans).items())
    assert set(scans.scans["session_id"]) == {"bl", "m06"}
    assert texts(scans)[1:] == [
        "Subject ids come from the column Subject of table.csv, by its name.",
        "Rows of table.csv are found by Image Data ID and sessions from Visit.",
        "Rows of table.csv without a scan: 1.",
    ]
    old = find_cohort(tmp_path, label="Sex", where="Age > 70")
    assert set(old.scans["session_id"]) == {"m06"}  # the row of the image, not of the subject


def test_without_a_label_the_table_beside_the_scans_is_offered(tmp_path):
    with pytest.raises(InputError, match=r"table.csv fits .*--label .*\(Group, Sex, Age, Visit"):
        adni(tmp_path)
    touch(tmp_path / "two", "AD/P01.nii", "NC/P02.nii", "NC/P03.nii")
    (tmp_path / "two" / "info.csv").write_text("id,sex,age\nP01,M,70\nP02,F,71\nP03,F,72\n")
    (tmp_path / "two" / "other.csv").write_text("a,b\n1,2\n")
    assert "info.csv fits the names of the scans: --label takes the classes from one of its " in (
        " ".join(texts(find_cohort(tmp_path / "two")))
    )


def test_a_picture_is_no_subject(tmp_path):
    names = [f"images/{n:04d}ab.png" for n in range(12)]
    rows = [[f"{n:04d}ab", f"P{n // 3}", group(n // 3)] for n in range(12)]
    by_patient = cohort(tmp_path, names, [["image_id", "Patient ID", "dx"], *rows], label="dx")
    assert set(subjects(by_patient).values()) == {"P0", "P1", "P2", "P3"}
    for column in ("image_id", "id", "filename", "code"):
        end = ".png" if column == "filename" else ""
        without = [[column, "dx"], *([image + end, dx] for image, _, dx in rows)]
        alone = cohort(tmp_path, names, without, label="dx")
        assert set(subjects(alone).values()) == {"unknown"}, column
        assert labels(alone) == labels(by_patient)


def test_a_pattern_gives_the_subjects_where_a_table_gives_the_labels(tmp_path):
    names = [f"x/p{n // 3}_{n}.png" for n in range(12)]
    rows = [["file", "dx"], *([f"p{n // 3}_{n}.png", group(n // 3)] for n in range(12))]
    scans = cohort(tmp_path, names, rows, label="dx", subject_pattern="(p[0-9])_")
    assert set(subjects(scans).values()) == {"p0", "p1", "p2", "p3"}
    assert texts(scans)[1:3] == [
        "Subject ids come from the pattern in the names.",
        "Rows of table.csv are found by file.",
    ]
    by_id = [["who", "dx"], *([f"P{n}", group(n)] for n in range(4))]
    scans = cohort(tmp_path, [], by_id, label="dx", subject_pattern="(p[0-9])_")
    assert labels(scans)["x/p1_4.png"] == "AD"
    (tmp_path / "table.csv").unlink()
    listed = "path,subject_id,label\n" + "".join(
        f"{n},{n},{group(i)}\n" for i, n in enumerate(names)
    )
    scans = cohort(tmp_path, [], listed, "scans.csv", subject_pattern="(p[0-9])_")
    assert set(subjects(scans).values()) == {"p0", "p1", "p2", "p3"}


def test_a_pattern_goes_before_the_ids_of_a_layout(tmp_path):
    bids(
        tmp_path,
        *(f"sub-{n}x{v}/anat/sub-{n}x{v}_T1w" for n in "12" for v in "ab"),
        participants="",
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tdx\n1xa\tAD\n1xb\tAD\n2xa\tNC\n2xb\tNC\n"
    )
    scans = find_cohort(tmp_path, subject_pattern="(sub-[0-9])")
    assert set(subjects(scans).values()) == {"sub-1", "sub-2"}
    assert any("the pattern in the names, not from the layout" in text for text in texts(scans))


def test_ids_that_recur_in_every_class_are_said(tmp_path):
    names = [f"{name}/Tr_{n:04d}.jpg" for name in ("glioma", "none") for n in range(5)]
    scans = cohort(tmp_path, names, subject_pattern="([0-9]+)")
    assert "5 of 5 subjects are in several classes." in texts(scans)
    assert any("in glioma, none. If numbers begin again" in text for text in texts(scans))
    hidden = pseudonymise_cohort(scans, tmp_path.parent / "shared.key", tmp_path)
    assert "5 of 5 subjects are in several classes." in texts(hidden)
    assert not any("0000" in text for text in texts(hidden))


def test_one_id_for_very_many_files_is_said(tmp_path):
    names = [f"{name}/{name}_{n:02d}.nii" for name in ("ad", "nc") for n in range(21)]
    scans = cohort(tmp_path, names, subject_pattern="(ad|nc)")
    assert any(
        "2 subjects have up to 21 scans: is the id in the names longer" in t for t in texts(scans)
    )
    pictures = [name.replace(".nii", ".png") for name in names]
    scans = cohort(tmp_path / "pictures", pictures, subject_pattern="(.*)[.]png")
    assert "Each of the 42 pictures is of a subject of its own." in texts(scans)


@pytest.mark.parametrize(
    "form",
    ["{0:04d}_run-{1}", "run-{1}/{0:04d}", "S{0:03d}_T1_ses{1}", "sub{0:02d}-{1}", "{0:03d}_x3T"],
)
def test_numbers_that_lost_their_zeros_are_no_runs(tmp_path, form):
    names = {n: f"{form.format(n, n % 2 + 1)}.nii" for n in range(1, 9)}
    rows = [["id", "age", "dx"], *([str(n), str(n + 1), group(n)] for n in range(1, 9))]
    scans = cohort(tmp_path, names.values(), rows, label="dx")
    assert subjects(scans) == {name: str(n) for n, name in names.items()}
    assert labels(scans) == {name: group(n) for n, name in names.items()}


def test_numbers_at_no_one_place_are_refused(tmp_path):
    rows = [["id", "dx"], *([str(n), group(n)] for n in range(1, 23))]
    names = [f"{n % 3 + 1}_{n:04d}.nii" for n in range(1, 13)]
    with pytest.raises(InputError, match=r"'id' of .* at several places .* --subject-pattern"):
        cohort(tmp_path, names, rows, label="dx")
    scans = find_cohort(tmp_path, label="dx", subject_pattern="_([0-9]+)")
    assert labels(scans)["2_0004.nii"] == "CN"
    with pytest.raises(InputError, match=r"No column of .* holds ids that the names"):
        cohort(tmp_path / "run", [f"ann_run-{n}.nii" for n in range(1, 9)], rows, label="dx")


@pytest.mark.parametrize("header", ["", "Unnamed: 0", "index", "no"])
def test_numbers_of_rows_are_no_ids(tmp_path, header):
    rows = [[header, "subject", "dx"], *([str(n), f"A{17 * n}", group(n)] for n in range(8))]
    with pytest.raises(InputError, match="No column of"):
        cohort(tmp_path, [f"{n:04d}_T1.nii" for n in range(1, 9)], rows, label="dx")


def test_two_groups_that_are_numbered_apart_are_not_one(tmp_path):
    names = [f"{letter}{n:03d}.nii" for letter in "PC" for n in range(1, 5)]
    rows = [["id", "dx"], *([str(n), group(n)] for n in range(1, 9))]
    with pytest.raises(InputError, match="the same value is in several, as C001 and P001: say"):
        cohort(tmp_path, names, rows, label="dx")
    folders = [f"{dx}/S{n:02d}.nii" for dx in ("AD", "CN") for n in range(4)]
    rows = [["id", "dx"], *([f"S{n:02d}", group(n)] for n in range(4))]
    said = texts(cohort(tmp_path / "folders", folders, rows, label="dx"))
    assert "4 scans are in a folder that has the name of another class." in said
    assert "The first of them is AD/S00.nii." in said


def test_composed_and_decomposed_letters_are_the_same(tmp_path):
    names = [normalize("NFD", f"Müller{n}_T1.nii") for n in range(4)]
    rows = [["name", "dx"], *([f"Müller{n}", group(n)] for n in range(4))]
    assert len(set(subjects(cohort(tmp_path, names, rows, label="dx")).values())) == 4


def test_the_columns_of_oasis2_with_other_ids_are_a_table_of_participants(tmp_path):
    rows = [["MRI ID", "Group"], *([f"M{n:03d}", group(n)] for n in range(4))]
    scans = cohort(tmp_path, [f"M{n:03d}.nii" for n in range(4)], rows, label="Group")
    assert (scans.layout, len(scans.scans)) == ("participants table", 4)


def test_the_label_and_ages_are_no_ids(tmp_path):
    spm = [f"ADNI_{group(n)}/smw{n + 2:03d}_S_{5000 + n}_20121114.nii" for n in range(8)]
    text = "Subject;Group;Sex;Age\n" + "".join(
        f"{n + 2:03d}_S_{5000 + n};{group(n)};{'MF'[n % 2]};{70 + n}\n" for n in range(8)
    )
    scans = cohort(tmp_path, spm, text, encoding="utf-8-sig", label="Group")
    assert subjects(scans) == {name: name[11:21] for name in spm}
    assert set(find_cohort(tmp_path, label="Sex").scans["subject_id"]) == set(
        subjects(scans).values()
    )
    ages = [["code", "age", "dx"], *([f"A{n}", str(n), group(n)] for n in range(50, 58))]
    with pytest.raises(InputError, match="No column of"):
        cohort(tmp_path / "ages", [f"{n:04d}.nii" for n in range(50, 58)], ages, label="dx")


@pytest.mark.parametrize(
    "name", ["wsub-{:02d}_T1w", "mwp1sub-{:02d}_T1w", "smwP{:02d}", "c1P{:02d}", "rP{:02d}/mri/x"]
)
def test_what_programs_put_before_a_name_is_no_part_of_it(tmp_path, name):
    number = "P{:02d}" if "P" in name else "sub-{:02d}"
    names = {n: f"{name.format(n)}.nii" for n in range(6)}
    if "/" in name:
        names = {n: f"d{n}/{name.split('/')[0].format(n)}.nii" for n in range(6)}
    rows = [["participant", "dx"], *([number.format(n), group(n)] for n in range(6))]
    scans = cohort(tmp_path, names.values(), rows, label="dx")
    assert subjects(scans) == {name: number.format(n) for n, name in names.items()}


def test_among_columns_in_all_names_the_one_of_fewest_ids_is_taken(tmp_path):
    names = [f"p{n // 3:03d}_s{n:03d}.nii" for n in range(36)]
    rows = [[f"s{n:03d}", f"p{n // 3:03d}", group(n // 3)] for n in range(36)]
    scans = cohort(tmp_path, names, [["series", "who", "dx"], *rows], label="dx")
    assert len(set(subjects(scans).values())) == 12
    assert "the fewest ids of the columns in the names (not series)" in texts(scans)[1]
    few = [["series", "who", "dx"], *rows[:12]]
    with pytest.raises(InputError, match=r"Which column .* series \(12 ids\), who \(4 ids\): call"):
        cohort(tmp_path / "few", names[:12], few, label="dx")


def test_sites_sexes_and_words_are_no_subjects(tmp_path):
    names = [f"{'Rome' if n % 2 else 'Oslo'}/X{n:03d}.nii" for n in range(12)]
    rows = [
        [f"X{n:03d}", "Rome" if n % 2 else "Oslo", "MF"[n // 2 % 2], group(n // 3)]
        for n in range(12)
    ]
    scans = cohort(tmp_path, names, [["code", "site", "sex", "dx"], *rows], label="dx")
    assert len(set(subjects(scans).values())) == 12
    patient = [["code", "patient"], *([f"X{n:03d}", str(n % 2)] for n in range(12))]
    assert len(set(subjects(cohort(tmp_path, [], patient, label="patient")).values())) == 12


def test_known_forms_in_names_decide_where_no_column_is_named_so(tmp_path):
    names = [
        f"OAS3{n // 2:04d}_MR_d{100 * n:04d}/sub-OAS3{n // 2:04d}_T1w.nii" for n in range(1, 9)
    ]
    rows = [
        ["MR ID", "dx"],
        *([name.split("/")[0], group(n // 2)] for n, name in enumerate(names, 1)),
    ]
    scans = cohort(tmp_path, names, rows, label="dx")
    assert set(subjects(scans).values()) == {f"OAS3{n:04d}" for n in range(5)}
    assert set(scans.scans["session_id"]) == {f"d{100 * n:04d}" for n in range(1, 9)}
    rows = [
        ["PTID", "RID", "dx"],
        *([f"{n:03d}_S_{4000 + n}", str(4000 + n), group(n)] for n in range(6)),
    ]
    files = [f"ADNI_{n:03d}_S_{4000 + n}.nii" for n in range(6)]
    assert set(subjects(cohort(tmp_path / "rid", files, rows, label="dx")).values()) == {
        row[0] for row in rows[1:]
    }


def test_an_image_of_another_subject_is_refused(tmp_path):
    names = [f"{n:03d}_S_1000/I{500 + n}.nii" for n in range(4)]
    rows = [["Image Data ID", "Subject", "dx"]]
    rows += [[f"I{500 + n}", f"{n ^ 1:03d}_S_1000", group(n)] for n in range(4)]
    with pytest.raises(
        InputError, match=r"holds 000_S_1000 and I500, which .* gives to 001_S_1000"
    ):
        cohort(tmp_path, names, rows, label="dx")


def test_sessions_tell_the_rows_of_a_subject_apart(tmp_path):
    names = [f"sub-{n:02d}_ses-{v:02d}_T1w.nii" for n in range(4) for v in (1, 2)]
    rows = [["participant_id", "visit", "age", "dx"]]
    rows += [
        [str(n), str(v), str(70 + v), "AD" if v > n else "CN"] for n in range(4) for v in (1, 2)
    ]
    scans = cohort(tmp_path, names, rows, label="dx")
    assert labels(scans)["sub-01_ses-01_T1w.nii"] == "CN"
    assert labels(scans)["sub-01_ses-02_T1w.nii"] == "AD"
    unnamed = [name.replace("ses-01", "first").replace("ses-02", "next") for name in names]
    with pytest.raises(InputError, match=r"several rows for 4 participants.* scans.tsv"):
        cohort(tmp_path / "not", unnamed, rows, label="dx")
    same = [[*row[:3], group(int(row[0]))] for row in rows[1:]]
    scans = cohort(tmp_path / "same", unnamed, [rows[0], *same], label="dx")
    assert any(
        "in which they differ (visit, age) nothing is taken" in text for text in texts(scans)
    )


def test_visits_in_words_tell_rows_apart_too(tmp_path):
    names = [f"{n:03d}_S_{4000 + n}_{visit}.nii" for n in range(4) for visit in ("bl", "m06")]
    rows = [["RID", "PTID", "VISCODE", "DX"]]
    for n in range(4):
        ids = [str(4000 + n), f"{n:03d}_S_{4000 + n}"]
        rows += [[*ids, "bl", "CN"], [*ids, "m06", "AD"], [*ids, "m12", "AD"]]
    scans = cohort(tmp_path, names, rows, label="DX")
    assert {path[11:-4]: label for path, label in labels(scans).items()} == {
        "bl": "CN",
        "m06": "AD",
    }
    assert set(scans.scans["session_id"]) == {"bl", "m06"}
    assert "4 of 4 subjects are in several classes." in texts(scans)


def test_a_table_that_lists_the_pictures_knows_their_patients_best(tmp_path):
    names = [f"{dx}/{dx}_{n:02d}.png" for dx in ("AD", "CN") for n in range(6)]
    rows = [["image", "patient", "label"]]
    rows += [[f"{dx}_{n:02d}", f"{dx}{n // 2}", dx] for dx in ("AD", "CN") for n in range(6)]
    scans = cohort(tmp_path, names, rows, label="label")  # AD1 is not the patient of AD_01
    assert subjects(scans)["AD/AD_01.png"] == "AD0"
    assert len(set(subjects(scans).values())) == 6


def test_spellings_of_an_id():
    names = Names(["sub-01_T1", "HC10/x", "P1_a", "p1_b", "Subj10", "X-7b"])
    assert match_values(["SUB-1", "HC-010", "P1", "Subj1", "X7"], names).in_names == [
        *("SUB-1", "HC-010", "P1"),
        *(None, None, None),  # P1 is there itself, Subj1 is no part of Subj10, nor X-7 of X-7b
    ]
    assert match_values(["1.0", "2.0"], Names(["a01", "a02"])).in_names == ["1.0", "2.0"]
    assert match_sessions(["2", "ses-3"], Names(["a_ses-02", "a_visit3"])).in_names == [
        "2",
        "ses-3",
    ]
    assert [role_of(name) for name in ("BraTS_2020_subject_ID", "Image Data ID", "VISCODE")] == [
        *("subject", "scan", "session")
    ]


@pytest.mark.parametrize(
    ("folders", "written"),
    [
        (["sub-01", "sub-11"], ["sub-1", "sub-11"]),
        (["sub-01", "sub-11"], ["SUB-01", "11"]),
        (["sub-HC-01", "sub-HC-02"], ["sub-HC-01", "sub-HC02"]),
        (["sub-HC01", "sub-HC02"], ["HC-01", "hc_2"]),
    ],
)
def test_bids_ids_are_the_folders_however_the_table_spells_them(tmp_path, folders, written):
    rows = "".join(f"{text}\t{dx}\n" for text, dx in zip(written, ("AD", "NC"), strict=True))
    names = [f"{name}/anat/{name}_T1w" for name in folders]
    bids(tmp_path, *names, participants=f"participant_id\tdx\n{rows}sub-99\tNC\n")
    scans = find_cohort(tmp_path)
    assert list(zip(scans.scans["subject_id"], scans.scans["label"], strict=True)) == [
        (folders[0], "AD"),
        (folders[1], "NC"),
    ]
    (tmp_path / "participants.tsv").rename(tmp_path / "participants.csv")
    assert subjects(find_cohort(tmp_path)) == subjects(scans)


def test_bids_subjects_that_no_row_fits_are_said(tmp_path):
    bids(tmp_path, *(f"sub-{n}/anat/sub-{n}_T1w" for n in ("a1", "a2", "b1")), participants="")
    (tmp_path / "participants.tsv").write_text("participant_id\tdx\na1\tAD\na2\tNC\nsub-1b\tNC\n")
    said = texts(find_cohort(tmp_path))
    assert "Without a row in the table of participants: 1 subject of 1 scan." in said
    assert "The first of them is sub-b1, the first row sub-a1." in said


def test_bids_folders_that_no_row_fits_at_all_are_refused_with_a_label(tmp_path):
    bids(tmp_path, *(f"sub-{n}/anat/sub-{n}_T1w" for n in ("a1", "a2")), participants="")
    (tmp_path / "participants.tsv").write_text("participant_id\tdx\nX1\tAD\nX2\tNC\n")
    with pytest.raises(InputError, match=r"has a value of 'dx'. None of its folders .* sub-a1.*X1"):
        find_cohort(tmp_path, label="dx")
    assert len(find_cohort(tmp_path, need_classes=False).scans) == 2


def test_both_spellings_among_the_folders_are_two_subjects():
    ids = rename_ids(pd.Series(["sub-1", "sub-01", "sub-2"]), ["sub-01", "sub-1", "sub-02"], "sub-")
    assert ids.tolist() == ["sub-1", "sub-01", "sub-02"]


SEMI = "id;age;group\r\n" + "".join(f"P{n:02d};{70 + n},5;{group(n)}\r\n" for n in range(6))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("\r\n".join(f"{line};;;" for line in SEMI.split("\r\n")[:-1]) + "\r\n;;;;;\r\n", "utf-8"),
        (f"sep=;\r\n{SEMI}", "utf-8"),
        (f'"sep=;"\r\n{SEMI}', "utf-8-sig"),
        (f"Study export\r\n\r\n{SEMI}", "utf-8"),
        (f"Study export, 2024;;\r\nby site;;\r\n{SEMI}", "cp1252"),
        (SEMI.replace(";", "\t"), "utf-16-le"),
        (SEMI.replace(";", "\t"), "utf-16-be"),
        (SEMI.replace(";", "|"), "utf-8"),
        (SEMI, "utf-16"),
        (SEMI.replace("P0", "p0"), "utf-8"),
        (SEMI.replace("id;", ";", 1), "utf-8"),
    ],
)
def test_tables_as_excel_writes_them(tmp_path, text, encoding):
    scans = cohort(
        tmp_path, [f"P{n:02d}_T1.nii" for n in range(6)], text, encoding=encoding, label="group"
    )
    assert labels(scans) == {f"P{n:02d}_T1.nii": group(n) for n in range(6)}
    assert len(find_cohort(tmp_path, label="group", where="age > 73").scans) == 3


@pytest.mark.parametrize(
    "word", ["NULL", "null", "#N/A", "#NV", "N/A", "na", "NaN", "-", ".", "<NA>"]
)
def test_what_stands_for_nothing_is_no_class(tmp_path, word):
    rows = [["id", "dx"], ["P1", "AD"], ["P2", "NC"], ["P3", word]]
    scans = cohort(tmp_path, ["P1.nii", "P2.nii", "P3.nii"], rows, label="dx")
    assert scans.class_names == ["AD", "NC"]
    assert texts(scans)[-2:] == [
        "1 scan has no value of dx and is left out.",
        f"No value of dx is what reads {word}.",
    ]
    chosen = find_cohort(tmp_path, label="dx", classes={"none": [word], "AD": ["AD", "NC"]})
    assert labels(chosen)["P3.nii"] == "none"


def test_a_folder_that_is_called_none_is_a_class(tmp_path):
    for number, name in enumerate(["None/a", "NA/b", "NULL/c", "glioma/d"]):
        write_volume(tmp_path / "data" / f"{name}.nii.gz", number)
    scans = find_cohort(tmp_path / "data")
    assert scans.class_names == ["NA", "NULL", "None", "glioma"]
    assert len(find_cohort(tmp_path / "data", where="class folder != NA").scans) == 3
    write_slices(scans, tmp_path / "out", SliceSpec(count=2, size=32), workers=1)
    stored = open_slices(tmp_path / "out")
    assert stored.class_names == scans.class_names
    assert set(stored.table["label"]) == set(scans.class_names)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"id,dx\nP1," + b"x" * 200_000, "no table that can be read, at line 2"),
        (b'id,dx,note\nP1,AD,"x\nP2,NC,\nP3,NC,\n', "a quotation mark is left open"),
        (b"PK\x03\x04" + b"x" * 99, "is a workbook of Excel"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 99, "is a workbook of Excel"),
        (b"id,dx\n\0\0\0\0,AD\nP2,NC\n", "bytes that are no text"),
        (
            b",".join(b"c%d" % n for n in range(30_000)) + b"\n1,2" * 700,
            "701 rows of 30,000 columns",
        ),
        (b"sep=;\n", "holds no rows"),
        (b"\n \n", "holds no rows"),
    ],
)
def test_absurd_tables_get_one_sentence(tmp_path, raw, reason):
    touch(tmp_path, "P1.nii", "P2.nii")
    (tmp_path / "participants.csv").write_bytes(raw)
    with pytest.raises(InputError, match=reason) as refusal:
        find_cohort(tmp_path, label="dx")
    assert len(str(refusal.value)) < 400


def test_a_label_that_no_table_has_names_the_columns_there_are(tmp_path):
    touch(tmp_path, "P1.nii", "P2.nii", "cohort.xlsx")
    (tmp_path / "a.csv").write_text("id,sex\nP1,M\nP2,F\n")
    with pytest.raises(InputError, match=r"'dx': it holds a.csv \(id, sex\). Save cohort.xlsx as"):
        find_cohort(tmp_path, label="dx")
    (tmp_path / "b.csv").write_text("id,sex\nP1,M\nP2,F\n")
    assert "Only a.csv is used: b.csv has the column sex too." in texts(
        find_cohort(tmp_path, label="sex")
    )


def test_a_table_of_scans_may_call_its_subjects_patients(tmp_path):
    rows = "path,Patient,label\na/1.png,x,AD\na/2.png,x,AD\nb/3.png,y,NC\n"
    scans = cohort(tmp_path, ["a/1.png", "a/2.png", "b/3.png"], rows, "scans.csv")
    assert subjects(scans) == {"a/1.png": "x", "a/2.png": "x", "b/3.png": "y"}
    assert len(cohort(tmp_path, [], rows + "b/3.png,y,NC\n", "scans.csv").scans) == 3
    with pytest.raises(InputError, match=r"different rows for one path, the first 'b/3.png'"):
        cohort(tmp_path, [], rows + "b/3.png,z,NC\n", "scans.csv")


def test_ids_with_hyphens_are_whole_and_slices_are_not_part_of_them(tmp_path):
    names = ["AD/sub-HC-01_T1.nii", "AD/sub-HC-02_T1.nii", "NC/sub-01-3/x.nii", "NC/sub-02-1.nii"]
    assert subjects(cohort(tmp_path, names)) == {
        names[0]: "sub-HC-01",
        names[1]: "sub-HC-02",
        names[2]: "sub-01-3",
        names[3]: "sub-02",
    }


def test_a_class_given_twice_joins_its_values():
    assert class_values("a=x,b=z,a=y|x") == {"a": ["x", "y"], "b": ["z"]}


def test_missing_words_are_each_named_once():
    assert len(MISSING) == len(set(MISSING))
    assert {"NULL", "#N/A", "n/a", "N/A", "NA", "NaN", "nan", "None", ""} <= set(MISSING)


def test_a_table_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(InputError, match=r"t.csv does not exist, or is no file"):
        read_any_table(tmp_path / "t.csv")
