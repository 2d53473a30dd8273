"""Headers that can be read although something in them is wrong, and orientations nobody stored."""

import gzip
import json
import struct

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.io import savemat

from headscope.auditing.inspect import inspect_data
from headscope.scans import affine as affine_module
from headscope.scans.volume import ScanError, read_scan
from headscope.slicing.export import slice_data
from headscope.slicing.spec import SliceSpec

SHAPE, SPACING = (12, 14, 10), (9.0, 8.0, 10.0)
RAS = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.int16)
AFFINE = np.diag([*SPACING, 1.0])
PIXDIM, DIM, OFFSET, SCALING, UNITS, CODES, SFORM = 76, 40, 108, 112, 123, 252, 280


def turned(ras, letters, affine=AFFINE):
    """A RAS volume as it is stored with axes that run as `letters` say, and its affine."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(letters))
    return apply_orientation(ras, turn), affine @ inv_ornt_aff(turn, ras.shape)


def nifti(*changes, form="sform", affine=AFFINE, volume=RAS):
    """The bytes of a NIfTI file with one or both forms, and then fields overwritten."""
    image = nib.Nifti1Image(volume, None)
    image.header.set_zooms(SPACING[: volume.ndim] + (1,) * (volume.ndim - 3))
    image.set_sform(affine, int(form in ("sform", "both")))
    image.set_qform(AFFINE if form != "sform" else None, int(form in ("qform", "both")))
    raw = bytearray(image.to_bytes())
    for place, code, *values in changes:
        struct.pack_into(code, raw, place, *values)
    return bytes(raw)


ZERO_COLUMN = AFFINE.copy()
ZERO_COLUMN[1, 1] = 0
REPAIRED = {  # file, what a note says of it
    "qfac 0": (nifti((PIXDIM, "<f", 0), form="qform"), "handedness"),
    "qfac 0.5": (nifti((PIXDIM, "<f", 0.5), form="qform"), "handedness"),
    "qfac NaN": (nifti((PIXDIM, "<f", np.nan), form="qform"), "handedness"),
    "dim[4] 0": (nifti((DIM, "<8h", 4, *SHAPE, 0, 1, 1, 1)), "counts as one volume"),
    "dim[5] negative": (nifti((DIM, "<8h", 5, *SHAPE, 1, -1, 1, 1)), "counts as one volume"),
    "zero sform": (nifti((SFORM, "<12f", *[0] * 12), form="both"), "so the qform counts"),
    "zero column": (nifti(form="both", affine=ZERO_COLUMN), "so the qform counts"),
    "NaN sform": (nifti((SFORM, "<f", np.nan), form="both"), "so the qform counts"),
    "axes coincide": (
        nifti((SFORM, "<12f", *[1, 1, 0, 0] * 2, 0, 0, 1, 0), form="both"),
        "so the qform counts",
    ),
    "NaN intercept": (nifti((SCALING, "<2f", 1, np.nan)), "intercept"),
    "offset 0": (nifti((OFFSET, "<f", 0)), "begin within the header"),
    "offset 100": (nifti((OFFSET, "<f", 100)), "begin within the header"),
    "offset negative": (nifti((OFFSET, "<f", -352)), "begin within the header"),
    "offset 348": (nifti((OFFSET, "<f", 348)), "begin within the header"),
    "offset NaN": (nifti((OFFSET, "<f", np.nan)), "begin within the header"),
    "negative spacing": (
        nifti((PIXDIM + 4, "<3f", -9, 8, -10), form="qform"),
        "A negative spacing",
    ),
}
PLAIN = {
    "slope 0": nifti((SCALING, "<2f", 0, 5)),
    "slope NaN": nifti((SCALING, "<2f", np.nan, np.nan)),
    "slope infinite": nifti((SCALING, "<2f", np.inf, 0)),
    "one volume": nifti((DIM, "<8h", 4, *SHAPE, 1, 1, 1, 1)),
    "trailing axes": nifti((DIM, "<8h", 7, *SHAPE, 1, 1, 1, 1)),
    "offset odd": nifti((OFFSET, "<f", 353))[:352] + b"\0" + nifti()[352:],
    "offset 348 without extensions": nifti((OFFSET, "<f", 348))[:348] + nifti()[352:],
    "qform alone": nifti(form="qform"),
    "sform NaN unused": nifti((CODES, "<2h", 1, 0), (SFORM, "<f", np.nan), form="qform"),
    "pixdim 0 unused": nifti((PIXDIM + 4, "<3f", 0, 0, 0)),
}


@pytest.mark.parametrize("case", [*REPAIRED, *PLAIN])
def test_a_header_that_can_be_mended_is_read_with_a_note(tmp_path, case):
    content, words = REPAIRED.get(case) or (PLAIN[case], None)
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.volume, RAS)
    assert (scan.spacing_mm, scan.slope, scan.intercept) == (pytest.approx(SPACING), 1, 0)
    assert len(scan.notes) == (words is not None) and (words or "") in "".join(scan.notes)


def test_a_spacing_that_is_not_stored_counts_as_1_mm(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti((PIXDIM + 12, "<f", 0), (CODES, "<2h", 0, 0)))
    scan = read_scan(tmp_path / "a.nii")
    assert scan.spacing_mm == (9, 8, 1)
    assert "pixdim is 0" in scan.notes[0] and "it is taken as LAS" in scan.notes[1]


TILTED = AFFINE.copy()
TILTED[2, 1] = 3  # as by a gantry
ANGLE = np.radians(40)
OBLIQUE = AFFINE.copy()
OBLIQUE[1:3, 1:3] = [[8 * np.cos(ANGLE), -10 * np.sin(ANGLE)],
                     [8 * np.sin(ANGLE), 10 * np.cos(ANGLE)]]  # fmt: skip


@pytest.mark.parametrize(
    ("affine", "form", "words"),
    [
        (np.diag([-9.0, 8, 10, 1]), "both", "The sform says LAS and the qform RAS"),
        (np.diag([9.0, 8, 5, 1]), "sform", "spacing of the sform is not that of pixdim"),
        (TILTED, "sform", "not at right angles"),
        (OBLIQUE, "sform", "more than 30° off those of the body"),
    ],
)
def test_an_unusual_affine_is_said(tmp_path, affine, form, words):
    (tmp_path / "a.nii").write_bytes(nifti(form=form, affine=affine))
    assert words in " ".join(read_scan(tmp_path / "a.nii").notes)


def unit(code, factor):
    """A head of 120 mm in a header that claims another unit, or wrong numbers in mm."""
    scaled = np.diag([*np.multiply(SPACING, factor), 1.0])
    return nifti((UNITS, "B", code), affine=scaled)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (unit(3, 1), r"is no head: .* a size of 0\.108 × 0\.112 × 0\.1 mm, .* the micron"),
        (unit(1, 1), r"a spacing of 9000 × 8000 × 1e\+04 mm, read from its unit, the metre"),
        (unit(2, 1e-3), r"is no head: .* a size of 0\.108 × 0\.112 × 0\.1 mm\."),
        (unit(2, 8), None),
        (nifti(affine=np.diag([90.0, 80, 90, 1]), volume=np.tile(RAS, (5, 5, 5))),
         r"is no head: .* a size of 5400 × 5600 × 4500 mm"),
    ],
)  # fmt: skip
def test_a_size_that_no_head_has_is_refused_in_words(tmp_path, content, reason):
    (tmp_path / "a.nii").write_bytes(content)
    if reason is None:
        assert "larger than that of a human head" in " ".join(read_scan(tmp_path / "a.nii").notes)
    else:
        with pytest.raises(ScanError, match=reason):
            read_scan(tmp_path / "a.nii")
    (tmp_path / "b.nii").write_bytes(unit(1, 1e-3))  # metres that are metres
    assert read_scan(tmp_path / "b.nii").spacing_mm == pytest.approx(SPACING)


def test_a_slice_whose_sform_lacks_an_axis_does_not_stop_the_cohort(tmp_path):
    flat = np.diag([9.0, 8, 0, 1])
    for number in range(4):
        folder = tmp_path / "data" / ("AD", "NC")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        raw = nifti(affine=flat, volume=RAS[:, :, number])
        (folder / f"sub-{number}.nii").write_bytes(raw)
    path = tmp_path / "data" / "AD" / "sub-0.nii"
    np.testing.assert_array_equal(read_scan(path).volume, RAS[:, :, :1])
    assert "lacks its third axis" in read_scan(path).notes[0]
    inspection = inspect_data(tmp_path / "data", count=1)
    assert inspection.slices == 4 and not len(inspection.problems)
    path.write_bytes(nifti(affine=np.diag([9.0, 0, 0, 1]), volume=RAS[:, :, 0]))
    assert len(inspect_data(tmp_path / "data", count=1).problems) == 1
    with pytest.raises(ScanError, match=r"spacing of 9 × 0|singular"):
        read_scan(path)


def test_a_packed_file_whose_claim_is_beyond_its_bytes_is_refused_unread(tmp_path, monkeypatch):
    """14 kB that claim 1.1 GB, and as much that claim what they could hold but no head has."""
    zeros = gzip.compress(nifti((DIM, "<4h", 3, 820, 820, 820)) + bytes(13_000_000))
    (tmp_path / "a.nii.gz").write_bytes(zeros)
    assert len(zeros) < 20_000
    with pytest.raises(ScanError, match=r"is truncated: .* packed bytes cannot hold|too large"):
        read_scan(tmp_path / "a.nii.gz")


# orientations that no file stores


def save_analyze(path, ras, letters, orient=0):
    """Write a RAS volume as a plain Analyze pair whose axes run as `letters` say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored, affine = turned(ras, letters)
    image = nib.AnalyzeImage(stored[..., None], None)
    image.header.set_zooms((*nib.affines.voxel_sizes(affine), 1))
    nib.save(image, path)
    raw = bytearray(path.with_suffix(".hdr").read_bytes())
    raw[252] = orient
    path.with_suffix(".hdr").write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("orient", "letters"),
    [(0, "LAS"), (1, "LSA"), (2, "ASL"), (3, "LPS"), (4, "LIA"), (5, "AIL"), (9, "LAS")],
)
def test_the_orient_field_of_analyze_counts(tmp_path, orient, letters):
    scan = read_scan(save_analyze(tmp_path / "a.img", RAS, letters, orient))
    np.testing.assert_array_equal(scan.volume, RAS)
    assert scan.spacing_mm == pytest.approx(SPACING)
    said = "orient field" if 0 < orient < 6 else "the convention of Analyze"
    assert said in scan.notes[0] and letters in scan.notes[0]


OASIS1 = {
    "mpr-1_anon": "ASL",
    "mpr-4_anon": "ASL",
    "mpr_n4_anon_sbj_111": "ASL",
    "mpr_n3_anon_111_t88_gfc": "LAS",
    "mpr_n4_anon_111_t88_masked_gfc": "LAS",
}


@pytest.mark.parametrize("name", OASIS1)
def test_scans_of_oasis_1_lie_as_the_set_stores_them(tmp_path, name):
    path = save_analyze(tmp_path / f"OAS1_0001_MR1_{name}.img", RAS, OASIS1[name])
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.volume, RAS)
    assert scan.notes == (
        f"No orientation is stored; it is taken as {OASIS1[name]}, as OASIS-1 has it in scans of "
        "that kind",
    )
    stated = read_scan(path, analyze_orientation="RPI")  # what is stated counts
    assert "taken as RPI, as analyze_orientation says" in stated.notes[0]


def oasis1(data, names):
    """OASIS-1 as it is distributed, of four subjects, with some of the files of a session."""
    rows = []
    for subject in range(4):
        session = f"OAS1_{subject + 1:04d}_MR1"
        rows.append({"ID": session, "M/F": "F", "CDR": 0.5 if subject % 2 else 0})
        for name in names:
            place = (
                "RAW"
                if "mpr-" in name
                else "PROCESSED/MPRAGE/" + ("T88_111" if "t88" in name else "SUBJ_111")
            )
            path = data / "disc1" / session / place / f"{session}_{name}.img"
            save_analyze(path, np.roll(RAS, subject, 1), OASIS1[name])
    pd.DataFrame(rows).to_csv(data / "oasis_cross-sectional.csv", index=False)
    return data


@pytest.mark.parametrize(
    "names",
    [["mpr-1_anon"], ["mpr-1_anon", "mpr_n4_anon_sbj_111"], list(OASIS1)],
    ids=["raw alone", "without T88", "with T88"],
)
def test_oasis_1_with_and_without_t88_gives_the_same_slices(tmp_path, names):
    """And inspection, the store and its report say the orientation that was assumed."""
    data = oasis1(tmp_path / "data", names)
    letters = OASIS1[names[-1]]
    inspection = inspect_data(data, count=4)
    slices = slice_data(data, tmp_path / "out", count=4, size=24)
    assert inspection.grids[["grid", "spacing_mm"]].to_numpy().tolist() == [
        ["12×14×10", "9 × 8 × 10"]
    ]
    settings = json.loads((tmp_path / "out" / "slices.json").read_text())
    assert settings["analyze_orientation"] == "auto"
    for notes in (inspection.notes, settings["notes"]):
        assert any(f"it is taken as {letters}, as OASIS-1 has it" in note for note in notes)
    plain = tmp_path / "plain" / "AD" / "a.nii"
    plain.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(RAS, AFFINE), plain)
    nib.save(nib.Nifti1Image(np.roll(RAS, 1, 1), AFFINE), plain.parents[1] / "b.nii")
    reference = slice_data(tmp_path / "plain", tmp_path / "reference", count=4, size=24)
    np.testing.assert_array_equal(slices.pixels[:4], reference.pixels[:4])


def test_a_matrix_m_alone_is_read_as_spm_and_nibabel_do(tmp_path):
    nib.save(nib.Spm99AnalyzeImage(RAS, AFFINE), tmp_path / "both.img")
    for name in ("M", "mat"):
        image = nib.Spm99AnalyzeImage(RAS, None)
        image.header.set_zooms(SPACING)
        nib.save(image, tmp_path / f"{name}.img")
    matrix = np.diag([-9.0, 8, 10, 1])
    savemat(tmp_path / "M.mat", {"M": matrix})
    savemat(
        tmp_path / "mat.mat",
        {"mat": np.repeat((np.diag([-1.0, 1, 1, 1]) @ matrix)[..., None], 2, 2)},
    )
    oracle = nib.as_closest_canonical(nib.load(tmp_path / "M.img"))
    scan = read_scan(tmp_path / "M.img")
    np.testing.assert_array_equal(scan.volume, np.asarray(oracle.dataobj))
    assert scan.notes == (
        "The .mat file holds M alone, which is mirrored left to right as SPM reads it",
    )
    several = read_scan(tmp_path / "mat.img")
    np.testing.assert_array_equal(several.volume, scan.volume)
    assert several.notes == ("The .mat file holds a matrix for each volume; the first counts",)
    assert read_scan(tmp_path / "both.img").notes == ()


def test_a_mat_file_that_is_no_matrix_by_its_header_is_not_loaded(tmp_path, monkeypatch):
    image = nib.Spm99AnalyzeImage(RAS, None)
    image.header.set_zooms(SPACING)
    nib.save(image, tmp_path / "a.img")
    savemat(tmp_path / "a.mat", {"mat": np.zeros((900, 900))}, do_compression=True)
    monkeypatch.setattr("scipy.io.loadmat", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(ScanError, match="holds no 4×4 matrix"):
        read_scan(tmp_path / "a.img")
    savemat(tmp_path / "a.mat", {"mat": np.zeros((4, 4, 30000))}, do_compression=True)
    with pytest.raises(ScanError, match="holds no 4×4 matrix"):
        read_scan(tmp_path / "a.img")
    monkeypatch.setattr(affine_module, "LARGEST_MATRIX", 100)
    with pytest.raises(ScanError, match=r"has a \.mat file of \d+ bytes beside it, too large"):
        read_scan(tmp_path / "a.img")


def test_mgh_without_an_orientation_says_what_is_assumed(tmp_path):
    stored = turned(RAS, "LIA")[0]
    nib.save(nib.MGHImage(stored, np.eye(4)), tmp_path / "a.mgh")
    raw = bytearray((tmp_path / "a.mgh").read_bytes())
    raw[28:30] = b"\0\0"  # goodRASFlag
    (tmp_path / "a.mgh").write_bytes(raw)
    scan = read_scan(tmp_path / "a.mgh")
    np.testing.assert_array_equal(scan.volume, RAS)
    assert "it is taken as LIA" in scan.notes[0]


def test_ready_slices_and_stated_orientations_are_said(tmp_path):
    (tmp_path / "AD").mkdir()
    (tmp_path / "NC").mkdir()
    nib.save(nib.Nifti1Image(RAS[..., 0], None), tmp_path / "AD" / "sub-1_cor.nii")
    nib.save(nib.Nifti1Image(RAS, None), tmp_path / "NC" / "sub-2.nii")
    notes = " ".join(inspect_data(tmp_path, count=2, plane="coronal").notes)
    assert "slices of two axes are taken as coronal and not mirrored: 1 of 2 scans." in notes
    assert "it is taken as LAS, the convention of Analyze: 1 of 2 scans." in notes
    assert SliceSpec().as_settings()["analyze_orientation"] == "auto"
    scan = read_scan(tmp_path / "NC" / "sub-2.nii", analyze_orientation="RAS")
    assert "it is taken as RAS, as analyze_orientation says" in " ".join(scan.notes)
