import json
import math
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from headscope.errors import InputError
from headscope.files import read_table
from headscope.scans.volume import read_scan
from headscope.simulation import cohort as simulate
from headscope.simulation import head as phantom
from headscope.simulation.cohort import plan_cohort, simulate_cohort, simulate_scan

SMALL = {"subjects": 6, "seed": 3, "spacing_mm": 6.0, "repeat_share": 0.4}
SETTINGS = {
    "seed": 1,
    "spacing_mm": 4.0,
    "ventricle_mm": 0.8,
    "thinning_mm": 0.15,
    "medial_loss": 0.06,
    "individuality": 1.0,
    "noise": 0.02,
}


@pytest.fixture(scope="module")
def template():
    return phantom.load_template()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(tmp_path_factory.mktemp("cohort"), workers=1, **SMALL)


@pytest.fixture(scope="module")
def remembered():
    """What simulates a scan once in this module, for cohorts that store the same scans again."""
    scans = {}

    def scan(template, row, settings):
        key = row["subject"], row["session"]
        if key not in scans:
            scans[key] = simulate_scan(template, row, settings)
        volume, truth = scans[key]
        return volume, truth | {"format": row["format"]}

    return scan


def make_row(subject=0, session=1, severity=2.0, label="NC"):
    return {
        "subject": subject,
        "session": session,
        "severity": severity,
        "label": label,
        "format": "nifti",
        "subject_id": f"sub-{subject + 1:03d}",
        "session_id": f"ses-{session}",
    }


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_same_bytes_whatever_the_workers(cohort, tmp_path):
    again = simulate_cohort(tmp_path / "again", workers=2, **SMALL)
    assert contents(again) == contents(cohort)


def test_processes_that_simulate_and_those_that_slice_do_not_get_in_one_anothers_way():
    # Of two copies of loky, each would tell the other's tracker of files that it does not know.
    code = """
import headscope.simulation.cohort, headscope.slicing.parallel
import joblib, numpy as np
joblib.Parallel(2)(joblib.delayed(np.sum)(np.zeros(300_000)) for _ in range(2))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_tables_name_every_scan(cohort):
    scans = read_table(cohort / "scans.tsv")
    truth = read_table(cohort / "truth.tsv")
    assert list(scans.columns) == ["path", "subject_id", "session_id", "label"]
    keys = ["subject_id", "session_id", "label"]
    pd.testing.assert_frame_equal(scans[keys], truth[keys])
    assert scans["subject_id"].nunique() == 6
    assert scans.drop_duplicates("subject_id")["label"].value_counts().to_dict() == {
        "AD": 3,
        "NC": 3,
    }
    assert scans["path"].iloc[0].startswith("scans/sub-001_ses-1.")
    for path in scans["path"]:
        image = nib.load(cohort / path)
        assert image.get_data_dtype() == np.int16
    assert "SIMULATED" in (cohort / "README.txt").read_text()
    assert json.loads((cohort / "simulation.json").read_text())["seed"] == 3


def test_scans_lie_in_ras_and_are_skull_stripped(cohort):
    for path in read_table(cohort / "scans.tsv")["path"]:
        image = nib.as_closest_canonical(nib.load(cohort / path))
        volume = np.asarray(image.dataobj)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms()[:3] == (6.0, 6.0, 6.0)
        assert not volume[[0, -1]].any() and not volume[:, [0, -1]].any() and volume.max() > 100
        assert 0.2 < (volume > 0).mean() < 0.6


def test_no_header_tells_the_class(cohort):
    scans = read_table(cohort / "scans.tsv")
    stored = {".gz": set(), ".hdr": set()}
    for path in scans["path"]:
        header = nib.load(cohort / path).header
        text = b"".join(bytes(header[name]) for name in header if header[name].dtype.kind == "S")
        assert b"AD" not in text and b"NC" not in text and b"sub" not in text
        stored["." + path.rsplit(".", 1)[1]].add(header.binaryblock)
    assert all(len(blocks) == 1 for blocks in stored.values())  # alike to the byte


def test_analyze_and_nifti_hold_the_same_brain(tmp_path):
    volume = np.random.default_rng(0).integers(0, 3000, (5, 6, 7), dtype=np.int16)
    simulate.write_oriented(tmp_path / "a.nii.gz", volume, 2.0)
    simulate.write_analyze(tmp_path / "b.hdr", volume, 2.0)
    assert nib.load(tmp_path / "b.hdr").header["sizeof_hdr"] == 348
    assert not isinstance(nib.load(tmp_path / "b.hdr"), nib.Nifti1Pair)  # magic number zero
    for name in ("a.nii.gz", "b.hdr", "b.img"):
        image = nib.as_closest_canonical(nib.load(tmp_path / name))
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        assert image.header.get_zooms()[:3] == (2.0, 2.0, 2.0)


def test_label_changes_nothing_but_severity(template):
    volumes = [
        simulate_scan(template, make_row(label=label), SETTINGS)[0] for label in ("AD", "NC")
    ]
    np.testing.assert_array_equal(*volumes)


def test_truth_agrees_with_the_images(template):
    plain = SETTINGS | {"noise": 0.0}
    severities = np.linspace(0, 6, 7)
    scans = [simulate_scan(template, make_row(severity=s), plain) for s in severities]
    dark, ventricles = [], []
    for volume, truth in scans:
        threshold = truth["gain"] * (truth["csf_to_white"] + truth["grey_to_white"]) / 2
        x, y, z = (np.arange(volume.shape[a]) * 4.0 + phantom.FIELD_MM[a, 0] for a in range(3))
        deep = volume[np.ix_(abs(x) < 38, (y > -55) & (y < 40), (z > 4) & (z < 34))]
        dark.append((deep < threshold).sum() * 4.0**3 / 1000)
        ventricles.append(truth["ventricle_ml"])
    assert np.all(np.diff(ventricles) > 0) and np.all(np.diff(dark) > 0)
    assert np.corrcoef(dark, ventricles)[0, 1] > 0.99
    brain = [truth["brain_ml"] for _, truth in scans]
    assert np.all(np.diff(brain) < 0) and 900 < brain[-1] < brain[0] < 2200
    for severity, (_, truth) in zip(severities, scans, strict=True):
        assert truth["cortical_thinning_mm"] == pytest.approx(0.15 * severity)
        assert truth["medial_temporal_loss"] == pytest.approx(1 - math.exp(-0.06 * severity))


def test_untouched_template_has_the_ventricles_of_the_template(template):
    plain = SETTINGS | {"individuality": 0.0, "spacing_mm": 2.0}
    _, truth = simulate_scan(template, make_row(severity=0.0), plain)
    assert truth["ventricle_ml"] == pytest.approx(17.7, rel=0.1)  # its voxels above a half
    assert truth["head_scale"] == 1


def test_medial_temporal_lobe_shrinks_where_the_hippocampi_lie(template):
    plain = SETTINGS | {"noise": 0.0, "individuality": 0.0, "ventricle_mm": 0, "thinning_mm": 0}
    few, many = (simulate_scan(template, make_row(severity=s), plain)[0] for s in (0.0, 6.0))
    change = (many.astype(float) - few) / few.max()
    places = np.argwhere(abs(change) > 0.05) * 4.0 + phantom.FIELD_MM[:, 0]  # (N, 3) mm
    away = np.linalg.norm(places[:, None] - phantom.HIPPOCAMPI_MM, axis=2).min(axis=1)
    assert len(away) > 100 and away.max() < 50
    assert change.sum() < 0


def test_sessions_look_like_their_subject(template):
    scans = {
        (subject, session): simulate_scan(template, make_row(subject, session), SETTINGS)[0]
        for subject in (0, 1)
        for session in (1, 2)
    }
    flat = {key: volume.ravel() / volume.max() for key, volume in scans.items()}
    same = np.corrcoef(flat[0, 1], flat[0, 2])[0, 1]
    other = max(np.corrcoef(flat[0, 1], flat[1, s])[0, 1] for s in (1, 2))
    assert other + 0.01 < same < 1


def test_noise_fields_have_unit_variance():
    rng = np.random.default_rng(0)
    fields = [phantom._smooth_noise(rng, 4.0, ((6.0, 1.0),)) for _ in range(8)]
    assert np.std(fields) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("effect", [0.0, 2.2, 3.0])
def test_best_possible_auc_follows_from_effect(effect):
    plan = pd.DataFrame(plan_cohort(400, 5, 0.0, effect))
    auc = roc_auc_score(plan["label"] == "AD", plan["severity"])
    assert auc == pytest.approx(norm.cdf(effect / math.sqrt(2)), abs=0.02)


def test_nothing_but_severity_hangs_on_the_class():
    plan = pd.DataFrame(plan_cohort(201, 5, 0.3, 2.2))
    formats = pd.crosstab(plan["label"], plan["format"])
    assert (formats["nifti"] - formats["analyze"]).abs().max() <= 1
    subjects = plan.groupby("subject").agg(label=("label", "first"), sessions=("session", "max"))
    counts = pd.crosstab(subjects["label"], subjects["sessions"])
    assert (counts.loc["AD"] - counts.loc["NC"]).abs().max() <= 1
    assert counts.sum().to_dict() == {1: 141, 2: 48, 3: 12}
    order = np.corrcoef(subjects.index, subjects["label"] == "AD")[0, 1]
    assert abs(order) < 0.2


def test_severity_never_falls_and_is_never_negative():
    plan = pd.DataFrame(plan_cohort(100, 8, 1.0, 2.2))
    assert plan["severity"].min() >= 0
    assert (plan.groupby("subject")["severity"].diff().dropna() > 0).all()


def test_second_call_makes_only_what_is_missing(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    simulate_cohort(tmp_path, workers=2, **SMALL)
    assert times == {name: (tmp_path / name).stat().st_mtime_ns for name in before}

    lost = next(tmp_path.glob("scans/*.hdr"))
    lost.unlink()
    simulate_cohort(tmp_path, workers=1, **SMALL)
    assert contents(tmp_path) == before
    again = {name for name in before if times[name] != (tmp_path / name).stat().st_mtime_ns}
    made = {f"scans/{lost.name}", f"scans/{lost.stem}.img", f"truth/{lost.stem}.json"}
    assert again == made | {"truth.tsv", "scans.tsv", "README.txt"}


def test_stopped_call_leaves_no_scans_tsv_and_is_gone_on_with(tmp_path, cohort, monkeypatch):
    write = simulate.write_json
    calls = []

    def stop(path, value):
        calls.append(path)
        if len(calls) > 3:
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(simulate, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate_cohort(tmp_path, workers=1, **SMALL)
    monkeypatch.undo()
    assert not (tmp_path / "scans.tsv").exists() and len(list(tmp_path.glob("truth/*"))) == 2
    simulate_cohort(tmp_path, workers=1, **SMALL)
    assert contents(tmp_path) == contents(cohort)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"subjects": 5}, "subjects"),
        ({"subjects": 6.5}, "subjects"),
        ({"seed": -1}, "seed"),
        ({"spacing_mm": 0}, "spacing_mm"),
        ({"repeat_share": 1.5}, "repeat_share"),
        ({"effect": math.nan}, "effect"),
        ({"noise": -0.1}, "noise"),
        ({"workers": 0}, "workers"),
    ],
)
def test_nonsense_is_refused(tmp_path, wrong, word):
    with pytest.raises(InputError, match=word):
        simulate_cohort(tmp_path / "cohort", **wrong)
    assert not (tmp_path / "cohort").exists()


def test_folder_with_something_else_is_refused(tmp_path, cohort):
    with pytest.raises(InputError, match=r"effect 2\.2, not 1\.0"):
        simulate_cohort(cohort, effect=1.0, **SMALL)
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputError, match=r"no simulation\.json"):
        simulate_cohort(tmp_path, **SMALL)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="is a file"):
        simulate_cohort(file, **SMALL)
    (tmp_path / "simulation.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        simulate_cohort(tmp_path, **SMALL)


@pytest.mark.parametrize(("scan_format", "suffix"), list(simulate.FORMATS.items()))
def test_every_format_holds_the_same_scan(
    scan_format, suffix, cohort, tmp_path, remembered, monkeypatch
):
    monkeypatch.setattr(simulate, "simulate_scan", remembered)
    made = simulate_cohort(tmp_path, workers=1, scan_format=scan_format, **SMALL)
    theirs, ours = (read_table(folder / "scans.tsv") for folder in (cohort, made))
    assert set(read_table(made / "truth.tsv")["format"]) == {scan_format}
    assert ours["path"].str.endswith(suffix).all()
    for a, b in zip(theirs["path"], ours["path"], strict=True):
        assert np.array_equal(read_scan(cohort / a).volume, read_scan(made / b).volume)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"Unknown format 'dicom': choose mixed, nifti"):
        simulate_cohort(tmp_path / "new", scan_format="dicom")
    assert not (tmp_path / "new").exists()
