"""Which files below a folder are scans: masks, maps, copies, contrasts and all that is left."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from headscope.auditing.inspect import inspect_data
from headscope.cli.options import class_values
from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.files import read_table
from headscope.scans.discovery import DEEPEST, ScanFile, find_scans, survey
from headscope.scans.labelmaps import is_label_map
from headscope.scans.naming import contrast_of, is_contrast, reason_left_out, without_contrast
from headscope.slicing.export import slice_data
from tests.support.folders import texts, touch


def paths(cohort):
    return sorted(cohort.scans["path"])


def brats(folder, contrasts=("t1", "t1ce", "t2", "flair"), mark="_"):
    names = [f"{label}/X{label}{n}" for label in ("HGG", "LGG") for n in range(3)]
    for name in names:
        stem = f"{name}/{name.split('/')[1]}"
        touch(folder, *(f"{stem}{mark}{part}.nii.gz" for part in (*contrasts, "seg")))
    return folder


def test_a_segmentation_is_no_scan_and_contrasts_are_named(tmp_path):
    cohort = find_cohort(brats(tmp_path))
    assert (len(cohort.scans), cohort.scans["subject_id"].nunique()) == (24, 6)
    assert "Left out by their names: masks and label maps (6)." in texts(cohort)
    assert (
        "Contrasts by the names: flair (6 scans), t1 (6 scans), t1ce (6 scans), t2 (6 scans), "
        "several in 6 sessions; --contrast chooses one."
    ) in texts(cohort)


@pytest.mark.parametrize(
    ("contrasts", "mark", "wanted", "taken"),
    [
        (("t1", "t1ce", "t2", "flair"), "_", "t1", "t1"),
        (("t1", "t1ce", "t2", "flair"), "_", "T1ce", "t1ce"),
        (("t1n", "t1c", "t2w", "t2f"), "-", "t1", "t1n"),
        (("t1n", "t1c", "t2w", "t2f"), "-", "flair", "t2f"),
        (("t1n", "t1c", "t2w", "t2f"), "-", "t1ce", "t1c"),
        (("T1_MPRAGE", "T2_FLAIR"), "_", "t1w", "T1_MPRAGE"),
    ],
)
def test_a_contrast_is_chosen_by_its_name_or_its_family(tmp_path, contrasts, mark, wanted, taken):
    cohort = find_cohort(brats(tmp_path, contrasts, mark), contrast=wanted)
    assert all(path.endswith(f"{mark}{taken}.nii.gz") for path in paths(cohort))
    assert cohort.scans["session_id"].tolist() == ["1"] * 6
    assert any("of other contrasts" in note for note in texts(cohort))
    with pytest.raises(InputError, match=r"of the contrast 'swi': their names hold "):
        find_cohort(tmp_path, contrast="swi")


def test_contrasts_in_one_folder_are_of_one_subject(tmp_path):
    touch(
        tmp_path, *(f"{c}/{c}{n}_{part}.nii" for c in "AB" for n in "12" for part in ("T1", "T2"))
    )
    cohort = find_cohort(tmp_path)
    assert sorted(set(cohort.scans["subject_id"])) == ["A1", "A2", "B1", "B2"]
    listed = "path,label\nA/A1_T1.nii,x\nA/A1_T2.nii,x\nB/B1_T1.nii,y\nB/B1_T2.nii,y\n"
    (tmp_path / "scans.csv").write_text(listed)
    cohort = find_cohort(tmp_path, contrast="t2")
    assert paths(cohort) == ["A/A1_T2.nii", "B/B1_T2.nii"]
    assert "Not in the table, and left out: 4 scans." in texts(cohort)


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("HGG/x/x_t1ce.nii.gz", "t1ce"),
        ("PD/PD_003_T1.nii", "t1"),
        ("AD/p1/MP-RAGE/2006-04-18/I1", "mprage"),
        ("AD/IXI012-HH-1211-T2.nii.gz", "t2"),
        ("AD/sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz", "t1w"),
        ("AD/x_T1_post.nii", "t1_post"),
        ("AD/pat1.nii", None),
    ],
)
def test_the_contrast_of_a_name(name, contrast):
    assert contrast_of(name) == contrast


def test_contrasts_match_by_letters_before_families():
    assert is_contrast("T1", {"t1", "t1n"}) == {"t1"}
    assert is_contrast("t1w", {"t1", "t1ce", "mprage"}) == {"t1", "mprage"}
    assert is_contrast("FLAIR", {"t2", "t2_flair"}) == {"t2_flair"}
    assert without_contrast("a/x_t1ce.nii.gz") == "a/x.nii.gz"
    assert without_contrast("a/t1.nii") == "a/t1.nii"
    assert without_contrast("a/T1_x.nii") == "a/x.nii"
    assert without_contrast("a/PD_001.nii") == "a/PD_001.nii"
    assert without_contrast("a/x_PD.nii") == "a/x.nii"
    assert without_contrast("a/x1_t1_mprage_sag.nii") == "a/x1.nii"
    assert without_contrast("a/x1_Ax_T2_TSE_3D.nii") == "a/x1.nii"
    assert without_contrast("a/sag_x1_T1w.nii") == "a/sag_x1.nii"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_black_and_white_pictures_beside_others_are_masks(tmp_path, suffix):
    grey = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    mask = np.where(grey > 60, 255, 0).astype(np.uint8)
    for name in ("A/sub-1", "A/sub-2", "B/sub-3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(grey).save(tmp_path / f"{name}.{suffix}")
        Image.fromarray(mask).save(tmp_path / f"{name}_tumour.{suffix}")
        Image.fromarray(grey[::-1]).save(tmp_path / f"{name}_late.{suffix}")
    cohort = find_cohort(tmp_path)
    assert len(cohort.scans) == 6 and not cohort.scans["path"].str.contains("tumour").any()
    assert "as masks and label maps do: 3 pictures." in " ".join(note.text for note in cohort.notes)


def test_bids_takes_the_plain_scan_before_the_contrast_enhanced_one(tmp_path):
    for name in ("sub-1_ce-gd_T1w", "sub-1_acq-x_run-1_T1w", "sub-2_ce-gd_T1w"):
        touch(tmp_path, f"{name.split('_')[0]}/anat/{name}.nii.gz")
    cohort = find_cohort(tmp_path, need_classes=False)
    assert [path.split("/")[-1] for path in cohort.scans["path"]] == [
        "sub-1_acq-x_run-1_T1w.nii.gz",
        "sub-2_ce-gd_T1w.nii.gz",
    ]
    notes = " ".join(note.text for note in cohort.notes)
    assert "Of 1 session the T1w is with a contrast agent (ce)" in notes
    assert is_contrast("t1", {"t1w", contrast_of("sub-2_ce-gadolinium_T1w.nii.gz")}) == {"t1w"}


def test_words_that_may_be_classes_do_not_join_subjects(tmp_path):
    touch(tmp_path, "PD/PD_001.nii", "PD/PD_002.nii", "CT/CT_001.nii", "CT/CT_002.nii")
    assert find_cohort(tmp_path).scans["subject_id"].nunique() == 4
    touch(tmp_path / "b", "A/T1_a.nii", "A/T2_a.nii", "B/T1_b.nii", "B/b_T2_1.nii", "B/b_T1_1.nii")
    assert sorted(set(find_cohort(tmp_path / "b").scans["subject_id"])) == ["a", "b", "b_1"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("AD/x_seg.nii", "label"),
        ("AD/x-label.nii.gz", "label"),
        ("AD/x_brainmask.nii", "label"),
        ("AD/x_lesion-msk.nii.gz", "label"),
        ("AD/labels/x.nii", "label"),
        ("AD/labelsTr/x.nii", "label"),
        ("AD/sub-1/anat/sub-1_dseg.nii.gz", "label"),
        ("AD/sub-1/anat/sub-1_label-GM_probseg.nii.gz", "label|maps"),
        ("AD/sub-1/anat/sub-1_desc-brain_mask.nii.gz", "label"),
        ("AD/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc_fseg.hdr", "label"),
        ("AD/p/mri/aparc+aseg.mgz", "label"),
        ("AD/p/mri/wm.mgz", "label"),
        ("AD/fsaverage/mri/T1.mgz", "templates"),
        ("AD/x_pve_1.nii.gz", "maps"),
        ("AD/c1x.nii", "maps"),
        ("AD/mwp1x.nii", "maps"),
        ("AD/p0x.nii", "label"),
        ("AD/derivatives/fmriprep/sub-1/anat/sub-1_desc-preproc_T1w.nii.gz", "derivatives"),
        ("AD/sub-1/func/sub-1_task-rest_bold.nii.gz", "functional"),
        ("AugmentedDataset/AD/x.jpg", "augmented"),
        ("AD/x_aug_3.jpg", "augmented"),
        # what a scan may well be called
        ("AD/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.hdr", None),
        ("AD/p/mri/brainmask.mgz", None),
        ("AD/p1_T1.nii", None),
        ("AD/c1.nii", None),
        ("AD/GT_001.nii", None),
        ("AD/scan_12_Aug_2019.nii", None),
        ("non_augmented/AD/x.jpg", None),
        ("AD/unlabelled.nii", None),
    ],
)
def test_a_name_says_what_is_no_scan(name, reason):
    result = reason_left_out(name, {"x"})
    assert (result is None) == (reason is None)
    assert reason is None or any(word in result for word in reason.split("|"))


def test_freesurfer_gives_one_volume_that_shows_anatomy(tmp_path):
    volumes = ("T1", "orig", "brainmask", "aseg", "ribbon", "wmparc", "filled")
    touch(tmp_path, *(f"{c}/{c}{n}/mri/{v}.mgz" for c in "AB" for n in "12" for v in volumes))
    touch(tmp_path, "A/A3/mri/norm.mgz", "A/A3/mri/aseg.mgz")
    cohort = find_cohort(tmp_path)
    assert [path.rsplit("/", 1)[1] for path in paths(cohort)] == [
        *("T1.mgz", "T1.mgz", "norm.mgz", "T1.mgz", "T1.mgz")
    ]
    assert "Left out by their names: masks and label maps (17)." in texts(cohort)
    assert any("is taken, not 8 volumes" in note for note in texts(cohort))


def test_maps_are_used_where_there_is_nothing_else_and_masks_never(tmp_path):
    touch(tmp_path / "maps", "A/a_gm.nii", "B/b_gm.nii", "B/b_mask.nii")
    cohort = find_cohort(tmp_path / "maps")
    assert paths(cohort) == ["A/a_gm.nii", "B/b_gm.nii"]
    assert any(note.startswith("All scans are probability maps") for note in texts(cohort))
    touch(tmp_path / "masks", "A/a_mask.nii", "B/b_seg.nii")
    with pytest.raises(InputError, match=r"no scans but 2 files that are masks .* scans.tsv"):
        find_cohort(tmp_path / "masks")


def save(path, kind):
    """A noisy volume, or a label map of two values, 1 and 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(len(str(path))).integers(0, 900, (24, 24, 24)).astype(np.int16)
    if kind == "labels":
        volume = np.zeros_like(volume)
        volume[8:14, 8:14, 9:13], volume[10:12, 10:12, 9:13] = 1, 2
    nib.save(nib.Nifti1Image(volume, np.diag([6, 6, 6, 1])), path)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_where_names_are_silent_voxels_tell_label_maps(tmp_path, suffix):
    for name in ("A/a1", "A/a2", "B/b1", "B/b2"):
        save(tmp_path / f"{name}/one.{suffix}", "scan")
        save(tmp_path / f"{name}/two.{suffix}", "labels")
    cohort = find_cohort(tmp_path)
    assert [path.rsplit("/", 1)[1] for path in paths(cohort)] == [f"one.{suffix}"] * 4
    assert any("few whole numbers" in note and "4 volumes" in note for note in texts(cohort))
    only = tmp_path / "only"
    save(only / f"A/a.{suffix}", "labels")
    save(only / f"B/b.{suffix}", "labels")
    assert any("nothing else is there" in note for note in texts(find_cohort(only)))


def test_a_damaged_file_is_no_label_map(tmp_path):
    for name, content in (("a.nii", b""), ("b.nii.gz", b"\x1f\x8b"), ("c.nii", b"x" * 400)):
        (tmp_path / name).write_bytes(content)
        assert not is_label_map(ScanFile(tmp_path / name, "volume"))
    assert not is_label_map(ScanFile(tmp_path / "none.nii", "volume"))
    assert not is_label_map(ScanFile(tmp_path / "x.png", "picture"))


def test_files_of_other_kinds_are_counted(tmp_path):
    touch(
        tmp_path,
        *("A/a.nii", "A/b.mha", "A/c.nrrd", "A/d.img", "A/e.png", "A/.DS_Store", "A/notes.pdf"),
        *("B/f.hdr", "B/f.img", "B/f.mat", "B/g.mat", "B/h.NRRD", "B/README", "B/i.json"),
        *("slices/slices.json", "slices/slices.npy", ".git/HEAD"),
    )
    below = survey(tmp_path)
    assert [file.path.name for file in below.scans] == ["a.nii", "f.hdr"]
    assert dict(below.others) == {
        **{".mha": 1, ".nrrd": 2, ".img without .hdr": 1, ".png": 1, ".pdf": 1, ".mat": 1},
        **{"hidden": 2, "without suffix": 1, ".json": 1, "folders that headscope wrote": 1},
    }
    notes = texts(find_cohort(tmp_path))
    assert (
        "Not read, though they may show scans: 2 .nrrd, 1 .img without .hdr, 1 .mha. Convert them "
        "to NIfTI (pictures to PNG)."
    ) in notes
    assert "Folders that headscope wrote: 1." in notes
    assert any(note.startswith("Files of other kinds: 2 hidden, 1 .json, 1 .mat") for note in notes)


def test_pictures_that_are_not_read_are_counted(tmp_path):
    suffixes = (".jpg", ".png", ".bmp", ".webp", ".gif", ".tif")
    touch(tmp_path, *(f"{c}/sub-{c}{n}{suffix}" for c in "AB" for n, suffix in enumerate(suffixes)))
    cohort = find_cohort(tmp_path)
    assert len(cohort.scans) == 6
    assert any("2 .bmp, 2 .gif, 2 .webp" in note for note in texts(cohort))


def test_a_folder_without_scans_says_what_it_holds(tmp_path):
    touch(tmp_path, "A/a.mha", "B/b.mha")
    with pytest.raises(InputError, match=r"holds no scans.*may show scans: 2 \.mha"):
        find_cohort(tmp_path)


def test_folders_deeper_than_any_data_set_are_not_looked_into(tmp_path):
    touch(tmp_path, "A/a.nii", "B/b.nii")
    deep = tmp_path.joinpath("A", *["d"] * (DEEPEST + 20))
    touch(deep, "c.nii")
    assert len(find_scans(tmp_path)) == 2
    assert any("deeper than 100 levels" in note for note in texts(find_cohort(tmp_path)))


@pytest.mark.parametrize("name", ["None", "NA", "nan", "NULL"])
def test_a_class_folder_may_be_called_none(tmp_path, name):
    for label in (name, "Glioma"):
        for number in range(2):
            save(tmp_path / "data" / label / f"{label[0]}{number}.nii", "scan")
    slices = slice_data(tmp_path / "data", tmp_path / "out", count=2, size=16, workers=1)
    assert slices.class_names == ["Glioma", name]
    assert set(read_table(tmp_path / "out" / "slices.tsv")["label"]) == {"Glioma", name}


def test_classes_that_repeat_are_joined():
    assert class_values("a=x,a=y,b=z|z") == {"a": ["x", "y"], "b": ["z"]}


def unlabelled(folder, layout):
    names = {
        "BIDS": "sub-{n}/anat/sub-{n}_T1w.nii.gz",
        "one folder": "p{n}.nii",
        "a folder per subject": "sub-{n}/t1.nii",
        "many folders": "p{n}/t1.nii",
    }
    for n in range(12 if layout == "many folders" else 3):
        save(folder / names[layout].format(n=n), "scan")
    return folder


@pytest.mark.parametrize("layout", ["BIDS", "one folder", "a folder per subject", "many folders"])
def test_scans_without_labels_are_inspected_and_sliced_but_not_trained_on(tmp_path, layout):
    data = unlabelled(tmp_path / "data", layout)
    inspection = inspect_data(data, count=2)
    assert inspection.classes["label"].tolist() == ["unlabelled"]
    assert inspection.subjects == len(find_scans(data))
    slices = slice_data(data, tmp_path / "out", count=2, size=16, workers=1)
    assert len(slices.pixels) == 2 * inspection.subjects
    with pytest.raises(InputError, match=r"neither (participants.tsv|class folders)"):
        find_cohort(data)


def test_many_folders_are_classes_where_they_are_chosen(tmp_path):
    touch(tmp_path, *(f"c{n}/x{n}{m}.nii" for n in range(12) for m in range(2)))
    with pytest.raises(InputError, match=r"12 folders .* taken for subjects: .* --classes"):
        find_cohort(tmp_path)
    cohort = find_cohort(tmp_path, classes={"a": ["c1"], "b": ["c2"]})
    assert cohort.class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("suffixes", "taken"),
    [
        (("mask", "dseg", "FLAIR"), "FLAIR"),
        (("MP2RAGE", "UNIT1", "T1map"), "UNIT1"),
        (("T2w", "T1w", "defacemask"), "T1w"),
        (("bold", "T2w"), "T2w"),
    ],
)
def test_of_the_suffixes_of_bids_the_one_that_shows_anatomy(tmp_path, suffixes, taken):
    for n in (1, 2):
        touch(tmp_path, *(f"sub-{n}/anat/sub-{n}_{suffix}.nii.gz" for suffix in suffixes))
        touch(tmp_path, f"sub-{n}/anat/sub-{n}_run-2_{suffixes[0]}.nii.gz")
        touch(
            tmp_path, f"sub-{n}/anat/sub-{n}_part-phase_{taken}.nii.gz", f"sub-{n}/ct/sub-{n}.nii"
        )
    cohort = find_cohort(tmp_path, need_classes=False)
    assert [path.rsplit("/", 1)[1] for path in paths(cohort)] == [
        f"sub-{n}_{taken}.nii.gz" for n in (1, 2)
    ]
    assert "Left out, as they are outside sub-*/anat: 2 scans." in texts(cohort)


def test_bids_takes_the_contrast_that_is_asked_for(tmp_path):
    touch(tmp_path, *(f"sub-{n}/anat/sub-{n}_{s}.nii.gz" for n in (1, 2) for s in ("T1w", "T2w")))
    cohort = find_cohort(tmp_path, contrast="t2", need_classes=False)
    assert all(path.endswith("_T2w.nii.gz") for path in paths(cohort))


def test_oasis1_counts_what_it_does_not_take(tmp_path):
    for n, cdr in enumerate(("0", "0.5")):
        session = f"OAS1_000{n}_MR1"
        place = f"disc1/{session}"
        touch(tmp_path, f"{place}/RAW/{session}_mpr-1_anon.hdr", f"{place}/extra{n}.nii")
        touch(tmp_path, f"{place}/PROCESSED/MPRAGE/SUBJ_111/{session}_mpr_n4_anon_sbj_111.hdr")
        touch(tmp_path, f"{place}/FSL_SEG/{session}_mpr_n4_anon_111_t88_masked_gfc_fseg.hdr")
        with (tmp_path / "oasis_cross-sectional.csv").open("a") as table:
            table.write(f"{'' if n else 'ID,CDR'}\n{session},{cdr}")
    (tmp_path / "disc1" / "loose.nii").touch()
    cohort = find_cohort(tmp_path)
    assert all("sbj_111" in path for path in paths(cohort))
    notes = [note.text for note in cohort.notes if note.about == "left out"]
    assert "Left out, as their names hold no session: 1 scan." in notes
    assert any("Not taken, of other processing" in note and "4 scans" in note for note in notes)
    assert "Left out by their names: masks and label maps (2)." in notes


def test_masks_beside_pictures_are_no_pictures(tmp_path):
    for label in "AB":
        for n in range(2):
            for name in (f"sub-{label}{n}.png", f"sub-{label}{n}_mask.png"):
                (tmp_path / label).mkdir(exist_ok=True)
                Image.new("L", (20, 20)).save(tmp_path / label / name)
    assert len(find_cohort(tmp_path).scans) == 4
