"""What a header says of a person reaches no artefact; ids become keyed hashes if asked."""

import hashlib
import hmac
import json
import re
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headscope.auditing import shortcuts
from headscope.auditing.audit import audit
from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.cohort.values import Note
from headscope.errors import InputError
from headscope.experiment.run import run
from headscope.reporting import write_report
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices
from tests.support.commands import headscope_here
from tests.support.experiments import settings, write_cohort

pytestmark = pytest.mark.usefixtures("few_trees")

# DICOM groups whose text tells a person, a place or a time: identification, patient, study, visit
PERSONAL = re.compile(r"(0008\|00[0-9a-f]{2}|0008\|1[0-9a-f]{3}|0010|0020\|00|0032|0038|0040)")


def personal_strings(folder: Path) -> dict[str, set[str]]:
    """Every text of the headers' personal fields, and its words, with the tags it stands in."""
    sitk = pytest.importorskip("SimpleITK", reason="DICOM needs SimpleITK: pip install '.[dicom]'")
    found: dict[str, set[str]] = {}
    for path in sorted(folder.iterdir())[:3]:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        for tag in reader.GetMetaDataKeys():
            text = reader.GetMetaData(tag).encode("utf-8", "replace").decode().strip()
            if PERSONAL.match(tag):
                for part in (text, *re.split(r"[\\^, ]+", text)):
                    found.setdefault(part, set()).add(tag)
    telling = {text: tags for text, tags in found.items() if len(text) > 4}
    wanted = {"0010|0010", "0010|0020", "0010|0030", "0008|0080", "0008|0020", "0020|000e"}
    assert wanted <= set().union(*telling.values())
    return telling


def occurrences(folder: Path, strings) -> list[str]:
    """Which strings occur in which files, as UTF-8 and as NumPy writes text (UTF-32)."""
    wanted = {text: (text.encode(), text.encode("utf-32-le")) for text in strings}
    hits = []
    for path in sorted(folder.rglob("*")):
        content = _unpacked(path)
        place = str(path.relative_to(folder))
        hits += [
            f"{text!r} in {place}"
            for text, codes in wanted.items()
            if text in place or any(code in content for code in codes)
        ]
    return hits


def _unpacked(path: Path) -> bytes:
    """What a file holds, arrays of an archive unpacked; of a folder nothing."""
    if path.suffix != ".npz":
        return path.read_bytes() if path.is_file() else b""
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def link(files, folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in files:
        (folder / path.name).symlink_to(path)


@pytest.mark.real_data
def test_no_personal_field_of_a_dicom_header_reaches_an_experiment(real_data, tmp_path):
    series = real_data / "formats" / "dicom_t1"
    strings = personal_strings(series)
    # generic words that stand in artefacts for reasons of their own are no trace of a header
    strings = sorted(set(strings) - {"PRIMARY", "ORIGINAL", "basic"})
    for number in range(8):
        folder = tmp_path / "data" / ("AD" if number % 2 else "NC") / f"head{number}"
        link(sorted(series.iterdir()), folder)
    broken = tmp_path / "data" / "NC" / "head9"  # a series that fails: its reason is written too
    files = sorted(series.iterdir())
    link(files[:20] + files[30:40], broken)
    known = {"plane": "sagittal", "regimes": ["frozen"], "splits": ["subject"], "epochs": 1}
    experiment = run(settings(tmp_path / "data", tmp_path / "out", **known))
    write_report(experiment)
    table = pd.read_csv(experiment / "slices" / "slices.tsv", sep="\t")
    assert set(table["subject_id"]) == {f"head{n}" for n in range(8)}
    problems = pd.read_csv(experiment / "slices" / "problems.tsv", sep="\t")
    assert problems["path"].tolist() == ["NC/head9"] and "lacks slices" in problems["reason"][0]
    assert len([path for path in experiment.rglob("*") if path.is_file()]) > 15
    assert occurrences(series, ["19701112"])  # the search finds what is there
    assert occurrences(experiment, strings) == []


def test_names_in_a_nifti_header_reach_no_artefact(tmp_path):
    import nibabel as nib

    data = write_cohort(tmp_path / "data")
    for path in data.rglob("*.nii.gz"):
        scan = nib.load(path)
        scan.header["descrip"], scan.header["db_name"] = b"Jane Q Public", b"born 19400102"
        scan.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Q Public"))
        nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), scan.affine, scan.header), path)
    write_slices(find_cohort(data), tmp_path / "out", SliceSpec(count=2, size=32), workers=1)
    assert occurrences(tmp_path / "out", ["Jane", "19400102"]) == []


def test_pseudonyms_are_keyed_hashes_and_no_id_is_left(tmp_path):
    data = write_cohort(tmp_path / "data")
    (data / "AD" / "sub-AD5_T1w.nii.gz").write_bytes(b"broken")
    (data / "sub-lost_T1w.nii.gz").write_bytes(b"outside of class folders")
    key = tmp_path / "keys" / "study.key"
    known = {"regimes": ["frozen"], "epochs": 1, "pseudonym_key": key}
    experiment = run(settings(data, tmp_path / "out", **known))
    write_report(experiment)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    names = [path.name.split("_")[0] for path in data.rglob("*.nii.gz")]
    assert occurrences(experiment, [*names, "T1w.nii"]) == []
    assert occurrences(experiment, [key.read_bytes().hex()]) == []
    table = pd.read_csv(experiment / "slices" / "slices.tsv", sep="\t", dtype=str)
    digest = hmac.new(key.read_bytes(), b"subject\0sub-NC0", hashlib.sha256).hexdigest()
    assert f"sub-{digest[:12]}" in set(table["subject_id"])
    assert table["subject_id"].nunique() == 11
    problems = pd.read_csv(experiment / "slices" / "problems.tsv", sep="\t")
    assert re.fullmatch(r"sub-[0-9a-f]{12}/ses-[0-9a-f]{8}", problems["path"][0])
    assert run(settings(data, tmp_path / "out", **known)) == experiment
    with pytest.raises(InputError, match="holds slices of other scans"):
        run(settings(data, tmp_path / "out", **(known | {"pseudonym_key": tmp_path / "other.key"})))


def test_an_audit_shows_pseudonyms_alone(tmp_path, monkeypatch, capsys):
    data = write_cohort(tmp_path / "of sub-NC0" / "scans")
    (data / "AD" / "sub-AD5_T1w.nii.gz").write_bytes(b"broken")
    for found, kept in (("NC/sub-NC1", "AD/sub-AD1"), ("NC/sub-NC3", "NC/sub-NC2")):
        copied = (data / f"{kept}_T1w.nii.gz").read_bytes()  # pairs, whose scans are named
        (data / f"{found}_T1w.nii.gz").write_bytes(copied)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(shortcuts, "DRAWS", 20)
    known = ["--count", 2, "--workers", 1, "--where", "subject_id != sub-NC4"]
    known += ["--pseudonym-key", tmp_path / "keys" / "study.key"]
    shown = headscope_here(monkeypatch, capsys, "audit", data, *known)
    as_json = headscope_here(monkeypatch, capsys, "audit", data, *known, "--json", "--out", "json")
    assert (shown.returncode, as_json.returncode) == (3, 3), shown.stderr + as_json.stderr
    (folder / "terminal").write_text("".join(map(str, (*shown, *as_json))))
    facts = json.loads(as_json.stdout)
    assert len(occurrences(folder, facts["pairs"][0]["subjects"])) >= 6  # in all three files
    assert occurrences(folder, ["sub-AD", "sub-NC", "T1w", str(data)]) == []
    assert (facts["path"], facts["subjects"], facts["scans"]) == ("pseudonymised scans", 10, 10)
    assert "identical" in {pair["kind"] for pair in facts["pairs"]}
    assert all(re.fullmatch(r"sub-[0-9a-f]{12}", name) for name in facts["pairs"][0]["subjects"])
    assert {each["family"]: each["note"] for each in facts["shortcuts"]}["grid"].startswith("the")


def test_an_error_of_a_pseudonymised_scan_names_no_file(tmp_path):
    data = write_cohort(tmp_path / "data")
    for number in range(4):
        (data / "AD" / f"sub-AD{number}_T1w.nii.gz").write_bytes(b"broken")
    key = tmp_path / "study.key"
    with pytest.raises(InputError, match=r"The first: sub-[0-9a-f]{12}/ses-[0-9a-f]{8} is no NI"):
        audit(data, count=2, workers=1, pseudonym_key=key)
    with pytest.raises(InputError, match=r"The first: .*data/AD/sub-AD0_T1w\.nii\.gz is no NIfTI"):
        audit(data, count=2, workers=1)


def test_an_audit_keeps_the_key_apart_and_hides_no_stored_ids(tmp_path, monkeypatch, capsys):
    data = write_cohort(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    inside = ["--pseudonym-key", "page/study.key", "--out", "page"]
    done = headscope_here(monkeypatch, capsys, "audit", data, *inside)
    assert done.returncode == 2 and "keep the key elsewhere" in done.stderr
    assert not (tmp_path / "page").exists()
    write_slices(find_cohort(data), tmp_path / "store", SliceSpec(count=2, size=32), workers=1)
    with pytest.raises(InputError, match="keep the ids that they were taken with"):
        audit(tmp_path / "store", pseudonym_key=tmp_path / "study.key")
    assert not (tmp_path / "study.key").exists()


NAMES = ("AD/p-One.nii", "AD/p-one.nii", "AD/p-two.nii", "AD/p-two.mgz", "NC/p-four.nii")


@pytest.mark.parametrize("table", [None, "participants.csv", "scans.csv"])
def test_notes_that_quote_ids_are_marked_where_they_are_made(tmp_path, table):
    data = tmp_path / "data"
    (data / "p-empty").mkdir(parents=True)
    for name in NAMES:
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).touch()
    label = None
    if table == "participants.csv":
        label = "site"
        (data / table).write_text("id,site\np-One,a p-One\np-two,b\np-four,a\np-one,c\n")
        (data / "AD" / "p-lost.nii").touch()
    elif table is not None:
        lines = [f"{name},{name[3:].split('.')[0]},{name[:2]}" for name in NAMES]
        (data / table).write_text("\n".join(["path,subject_id,label", *lines]))
    cohort = find_cohort(data, label=label, where="session_id != p-three")
    quoted = [note for note in cohort.notes if "p-" in note.text]
    assert len(quoted) >= 3 and all(note.names_ids for note in quoted)
    hidden = pseudonymise_cohort(cohort, tmp_path / "key", tmp_path / "out").notes
    assert hidden[:-1] == [note for note in cohort.notes if "p-" not in note.text]
    assert hidden[-1] == Note("Ids are pseudonyms: keyed hashes of those in the data.")


def test_a_note_is_left_out_by_its_mark_and_not_by_its_words(tmp_path):
    notes = [Note("Left out, the first x.nii."), Note("Nothing in particular.", names_ids=True)]
    cohort = replace(find_cohort(write_cohort(tmp_path / "data")), notes=notes)
    hidden = pseudonymise_cohort(cohort, tmp_path / "key", tmp_path / "out")
    assert hidden.notes[0] == notes[0] and len(hidden.notes) == 2


def test_the_same_key_gives_the_same_pseudonyms_and_another_gives_others(tmp_path):
    cohort = find_cohort(write_cohort(tmp_path / "data"))
    first, again, other = (
        pseudonymise_cohort(cohort, tmp_path / name, tmp_path / "out").scans
        for name in ("a", "a", "b")
    )
    pd.testing.assert_frame_equal(first, again)
    assert not set(first["subject_id"]) & set(other["subject_id"])
    assert first["subject_id"].nunique() == cohort.scans["subject_id"].nunique()


def test_the_order_of_rows_says_nothing_about_the_real_ids(tmp_path):
    cohort = find_cohort(write_cohort(tmp_path / "data"))
    hidden = pseudonymise_cohort(cohort, tmp_path / "key", tmp_path / "out").scans
    assert hidden["subject_id"].is_monotonic_increasing
    assert hidden["path"].tolist() != cohort.scans["path"].tolist()
    turned = replace(cohort, scans=cohort.scans[::-1].reset_index(drop=True))
    again = pseudonymise_cohort(turned, tmp_path / "key", tmp_path / "out").scans
    pd.testing.assert_frame_equal(hidden, again)


def test_a_key_that_protects_nothing_is_refused(tmp_path):
    cohort = find_cohort(write_cohort(tmp_path / "data"))
    (tmp_path / "short.key").write_bytes(b"secret")
    with pytest.raises(InputError, match="holds 6 bytes: 16 are the least"):
        pseudonymise_cohort(cohort, tmp_path / "short.key", tmp_path / "out")
    with pytest.raises(InputError, match="keep the key elsewhere"):
        pseudonymise_cohort(cohort, tmp_path / "out" / "study.key", tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read"):
        pseudonymise_cohort(cohort, tmp_path / "data", tmp_path / "out")


def test_a_key_among_the_scans_is_refused(tmp_path, monkeypatch, capsys):
    data = write_cohort(tmp_path / "data", subjects=3)
    (tmp_path / "link").symlink_to(data)
    known = ["--count", 2, "--size", 32, "--workers", 1, "--pseudonym-key"]
    for key in (data / "study.key", data / "AD" / "deep" / "study.key", tmp_path / "link" / "key"):
        for command in (["slice", data, tmp_path / "out"], ["audit", data]):
            options = known if command[0] == "slice" else ["--pseudonym-key"]
            done = headscope_here(monkeypatch, capsys, *command, *options, key)
            assert done.returncode == 2 and "keep the key elsewhere" in done.stderr
        assert not key.exists() and not (data / "AD" / "deep").exists()


def test_a_key_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    cohort = find_cohort(write_cohort(tmp_path / "data", subjects=3))
    key = tmp_path / "keys" / "study.key"
    with monkeypatch.context() as full:
        full.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(InputError, match=r"study\.key cannot be made: No space left"):
            pseudonymise_cohort(cohort, key, tmp_path / "out")
    assert not [*key.parent.iterdir()]
    pseudonymise_cohort(cohort, key, tmp_path / "out")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and [*key.parent.iterdir()] == [key]


def test_an_id_of_any_bytes_has_a_pseudonym(tmp_path):
    cohort = find_cohort(write_cohort(tmp_path / "data", subjects=3))
    scans = cohort.scans.astype(object)
    scans["subject_id"] = pd.Series([f"sub-{n}\udce9" for n in range(6)], dtype=object)
    hidden = pseudonymise_cohort(replace(cohort, scans=scans), tmp_path / "key", tmp_path / "out")
    assert hidden.scans["subject_id"].str.fullmatch("sub-[0-9a-f]{12}").all()


def test_under_pseudonyms_no_reason_names_a_folder_of_the_machine():
    reasons = {"a": "/home/jane/out/runs/a/last.pt is no resume file.", "b": "Out of memory."}
    config = settings("/home/jane/scans", "/home/jane/out", pseudonym_key="/home/jane/key")
    assert config.for_record(reasons) == {
        "a": "out/runs/a/last.pt is no resume file.",
        "b": "Out of memory.",
    }
    assert settings("/home/jane/scans", "/home/jane/out").for_record(reasons) == reasons
