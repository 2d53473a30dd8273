"""DICOM as it is exported: frames in any order, and what else lies beside the series meant."""

import shutil

import numpy as np
import pytest

from headscope.auditing.inspect import inspect_data
from headscope.scans import frames
from headscope.scans.discovery import ScanFile, find_scans, survey
from headscope.scans.volume import ScanError, read_scan
from headscope.slicing.export import slice_data
from tests.support import dicom_objects as objects
from tests.support.dicom_objects import dataset, placed, pydicom, save, volume, with_pixels

COUNT = volume().shape[2]


def test_frames_are_sorted_by_their_positions(tmp_path):
    ras = volume()
    order = [(0, k) for k in range(COUNT)]
    shuffled = [order[n] for n in np.random.default_rng(0).permutation(COUNT)]
    for name, frames_in_order in (("a", order), ("b", shuffled), ("c", order[::-1])):
        save(objects.enhanced([ras], frames_in_order), tmp_path / name / "IM1.dcm")
    scans = {name: read_scan(tmp_path / name) for name in "abc"}
    for scan in scans.values():
        np.testing.assert_array_equal(scan.volume, ras)
        assert scan.spacing_mm == pytest.approx((6, 6, 6))
    assert [len(scan.notes) for scan in scans.values()] == [1, 2, 1]  # all: it is a small grid
    assert any("frames of the DICOM file are out of order" in note for note in scans["b"].notes)


def test_frames_of_several_volumes_and_files(tmp_path):
    echoes = [volume(0), volume(1)]
    order = [(echo, k) for k in range(COUNT) for echo in (0, 1)]
    save(objects.enhanced(echoes, order), tmp_path / "a" / "IM1")
    with pytest.raises(ScanError, match="holds 2 volumes: choose one"):
        read_scan(tmp_path / "a")
    np.testing.assert_array_equal(read_scan(tmp_path / "a", volume=1).volume, echoes[1])
    for part in (0, 1):  # one volume in two files of several frames
        half = objects.enhanced(echoes, [(0, k) for k in range(part, COUNT, 2)])
        half.SOPInstanceUID, half.InstanceNumber = f"1.2.3.{part}", part
        save(half, tmp_path / "b" / f"{part}.dcm")
    np.testing.assert_array_equal(read_scan(tmp_path / "b").volume, echoes[0])
    save(objects.enhanced(echoes, [(0, k) for k in range(COUNT) if k != 3]), tmp_path / "c.dcm")
    with pytest.raises(ScanError, match="lacks slices: they are 6 to 12 mm apart"):
        read_scan(tmp_path / "c.dcm")


def test_frames_of_different_scaling_are_scaled_each(tmp_path):
    scaling = [(k + 1, 10 * k) for k in range(COUNT)]
    order = [(0, k) for k in range(COUNT)]
    save(objects.enhanced([volume()], order, scaling), tmp_path / "a.dcm")
    slopes, intercepts = np.array(scaling).T
    np.testing.assert_allclose(read_scan(tmp_path / "a.dcm").volume, volume() * slopes + intercepts)


def test_frames_without_positions_are_read_as_axial_with_a_note(tmp_path):
    stack = np.stack([objects.picture_of(volume(), k) for k in range(COUNT)])
    save(with_pixels(dataset(NumberOfFrames=COUNT), stack), tmp_path / "a.dcm")
    scan = read_scan(tmp_path / "a.dcm")
    np.testing.assert_array_equal(scan.volume, volume())
    assert any(
        "stores no position and no orientation and no spacing" in note for note in scan.notes
    )
    for k in range(COUNT):
        save(with_pixels(dataset(number=k), stack[k]), tmp_path / "b" / f"{k}.dcm")
    with pytest.raises(ScanError, match="stores no positions of its slices"):
        read_scan(tmp_path / "b")


def test_a_mosaic_is_refused(tmp_path):
    data = dataset(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    save(placed(with_pixels(data, volume()[:, :, 0])), tmp_path / "AD" / "s1" / "IM1.IMA")
    with pytest.raises(ScanError, match="is a Siemens mosaic, all slices tiled in one picture"):
        read_scan(tmp_path / "AD" / "s1")


EXTRAS = {
    "localizer": objects.write_localizer,
    "localizer by name": lambda place: save(
        placed(with_pixels(dataset(series="1.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
                           volume()[:, :, 0])), place / "scout.dcm"),
    "screenshot": lambda place: save(
        with_pixels(dataset(objects.SCREENSHOT, "1.9"), np.full((9, 9, 3), 9, "u1"), colours=3),
        place / "SC.dcm"),
    "grey screenshot": lambda place: save(
        with_pixels(dataset(objects.SCREENSHOT, "1.9"), np.full((9, 9), 9, "u1")),
        place / "SC.dcm"),
    "report": lambda place: save(dataset(objects.REPORT, "1.9", Modality="SR"), place / "SR.dcm"),
    "document": lambda place: save(
        dataset(objects.DOCUMENT, "1.9", EncapsulatedDocument=b"%PDF-1.4 "), place / "doc.dcm"),
    "presentation": lambda place: save(dataset(objects.PRESENTATION, "1.9"), place / "PR"),
    "private data": lambda place: save(dataset(objects.SIEMENS_DATA, "1.9"), place / "csa.IMA"),
    "segmentation": lambda place: save(
        with_pixels(dataset(objects.SEGMENTATION, "1.9", NumberOfFrames=2),
                    np.zeros((2, 9, 9), "u1")), place / "SEG.dcm"),
    "mosaic": lambda place: save(
        placed(with_pixels(dataset(series="1.9", ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"]),
                           volume()[:, :, 0])), place / "fmri.dcm"),
    "fewer slices": lambda place: objects.write_axial(
        place, volume(5)[:, :, :5], "1.9", "T2-{}.dcm"),
    "projection": lambda place: objects.write_axial(
        place, volume(5), "1.9", "MIP-{}.dcm", ImageType=["DERIVED", "SECONDARY", "MIP"]),
    "phase image": lambda place: objects.write_axial(
        place, volume(5), "1.9", "P-{}.dcm", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]),
}  # fmt: skip


@pytest.mark.parametrize("beside", ["in its folder", "in a folder beside it"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_beside_a_series_is_left_out_and_counted(tmp_path, extra, beside):
    folder = tmp_path / "AD" / "P1"
    place, series = folder, folder
    if beside != "in its folder":
        place, series = folder / "0002", folder / "0001"
    EXTRAS[extra](place)
    objects.write_axial(series, volume())
    below = survey(tmp_path)
    assert below.scans == [ScanFile(series, "series")]
    assert len(below.left_out) == 1 and below.left_out[0].kind
    np.testing.assert_array_equal(read_scan(series).volume, volume())


def test_a_phase_image_alone_is_read_with_a_note(tmp_path):
    objects.write_axial(tmp_path, volume(), ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    assert "The DICOM series is a phase image, by its ImageType" in read_scan(tmp_path).notes


def test_an_export_of_a_scanner_is_read_and_said(tmp_path):
    """Folders of numbers, files without suffix, a DICOMDIR, and most of it not the series meant."""
    for number, label in enumerate(["AD", "AD", "NC", "NC"]):
        study = tmp_path / "data" / label / f"PAT{number}" / "STU1"
        fields = {"study": f"1.2.{number}"}
        objects.write_localizer(study / "SER1", f"1.3.{number}.1", "IMG{}", **fields)
        objects.write_axial(study / "SER2", volume(number), f"1.3.{number}.2", "IMG{}", **fields)
        objects.write_axial(
            study / "SER3", volume(9)[:, :, :4], f"1.3.{number}.3", "IMG{}", **fields
        )
        save(dataset(objects.REPORT, f"1.3.{number}.4", **fields), study / "SER4" / "IMG0")
        save(dataset(objects.REPORT), tmp_path / "data" / label / f"PAT{number}" / "DICOMDIR")
    inspection = inspect_data(tmp_path / "data", count=4)
    assert inspection.subjects == 4 and not len(inspection.problems)
    assert inspection.grids["grid"].tolist() == ["12×10×8"]
    slices = slice_data(tmp_path / "data", tmp_path / "out", count=4, size=16)
    for notes in (inspection.notes, slices.notes):
        text = "\n".join(notes)
        assert "Left out beside the DICOM series taken: 4 × localizer (12 files)." in text
        assert "4 × series with fewer slices than another of the same study (16 files)." in text
        assert "4 × report or other object without a picture (4 files)." in text
        assert "The first localizer is AD/PAT0/STU1/SER1." in text
    assert len(slices.pixels) == 16


def test_extras_alone_are_named_among_the_problems(tmp_path):
    objects.write_localizer(tmp_path / "AD" / "P1")
    save(dataset(objects.REPORT), tmp_path / "NC" / "P2" / "SR")
    reasons = []
    for file in find_scans(tmp_path):
        with pytest.raises(ScanError) as error:
            read_scan(file)
        reasons.append(error.value.reason)
    assert reasons[0].startswith("mixes slices of different orientation")
    assert reasons[1].startswith("holds no picture: it is a report")


def test_series_of_several_studies_in_one_folder_all_stay(tmp_path):
    for study, count in (("1.1", 8), ("1.2", 6)):
        objects.write_axial(
            tmp_path, volume()[:, :, :count], f"{study}.1", f"{study}-{{}}.dcm", study=study
        )
    assert [file.path.name for file in find_scans(tmp_path)] == ["1.1-0.dcm", "1.2-0.dcm"]


@pytest.mark.parametrize("numbers", ["no study", "one study", "one series"])
def test_subjects_side_by_side_all_stay_whatever_is_left_of_their_numbers(tmp_path, numbers):
    for subject, count in enumerate((8, 6)):
        fields = {"study": "" if numbers == "no study" else "1.1", "PatientID": "anonymous"}
        if numbers == "one study":
            fields["PatientID"] = f"P{subject}"
        series = "1.1.1" if numbers == "one series" else f"1.1.{subject}"
        folder = tmp_path / "AD" / f"P{subject}"
        objects.write_axial(folder, volume()[:, :, :count], series, **fields)
    assert [file.path.name for file in find_scans(tmp_path)] == ["P0", "P1"]


def test_strays_and_copies_within_a_series_are_left_out_with_a_note(tmp_path):
    objects.write_axial(tmp_path / "a", volume())
    shutil.copy(tmp_path / "a" / "IM002.dcm", tmp_path / "a" / "IM002 (1).dcm")
    objects.write_axial(tmp_path / "b", volume())
    data = with_pixels(dataset(number=99), volume()[:, :, 0])
    save(placed(data, objects.SAGITTAL), tmp_path / "b" / "stray.dcm")
    for name, word in (("a", "stored twice"), ("b", "another size or orientation")):
        scan = read_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.volume, volume())
        assert any(word in note for note in scan.notes)


def test_missing_uneven_and_changed_slices_are_refused(tmp_path):
    objects.write_axial(tmp_path / "gap", volume(), skip=(3,))
    with pytest.raises(ScanError, match="lacks slices: they are 6 to 12 mm apart"):
        read_scan(tmp_path / "gap")
    data = placed(with_pixels(dataset(number=50), volume()[:, :, 0].T), position=(0, 0, 15.0))
    save(data, objects.write_axial(tmp_path / "uneven", volume()) / "more.dcm")
    with pytest.raises(ScanError, match="is uneven: its slices are 3 to 6 mm apart"):
        read_scan(tmp_path / "uneven")
    data = placed(with_pixels(dataset(number=50), volume()[:, :, 0].T), position=(0, 0, 12.0))
    save(data, objects.write_axial(tmp_path / "twice", volume()) / "more.dcm")
    with pytest.raises(ScanError, match="some of its slices occur more often than others"):
        read_scan(tmp_path / "twice")


@pytest.mark.parametrize("name", ["I{:03d}.dicom", "I{:03d}.DIC", "I{:03d}.mr", "I{:03d}", "1.{}"])
def test_a_dicom_file_is_known_by_its_content(tmp_path, name):
    objects.write_axial(tmp_path / "AD" / "P1", volume(), names=name)
    assert find_scans(tmp_path) == [ScanFile(tmp_path / "AD" / "P1", "series")]


def white_is_zero(data, _):
    data.PhotometricInterpretation = "MONOCHROME1"
    data.PixelData = (4000 - np.frombuffer(data.PixelData, "<u2")).tobytes()


def hounsfield(data, _):
    data.RescaleSlope, data.RescaleIntercept = 1, -1024


def twelve_bits(data, _):
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = (np.frombuffer(data.PixelData, "<u2") | 0xA000).tobytes()  # an overlay


def gantry(data, k):
    data.ImagePositionPatient = [0, 3.0 * k, objects.SPACING * k]


@pytest.mark.parametrize(
    ("edit", "expected", "word"),
    [
        (white_is_zero, volume() + 0.0, "stores white as 0"),
        (hounsfield, volume() - 1024.0, ""),
        (twelve_bits, volume() + 0.0, ""),
        (gantry, volume() + 0.0, "not at right angles"),
    ],
)
def test_pixels_mean_what_their_header_says(tmp_path, edit, expected, word):
    scan = read_scan(objects.write_axial(tmp_path / "a", volume(), edit=edit))
    difference = scan.volume - expected
    assert np.ptp(difference) == 0  # white as 0 leaves the level open
    assert word in " ".join(scan.notes)


@pytest.mark.parametrize(
    "syntax",
    ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian",
     "RLELossless", "JPEG2000Lossless"],
)  # fmt: skip
def test_transfer_syntaxes_give_the_same_voxels(tmp_path, syntax):
    stack = volume()
    data = objects.enhanced([stack], [(0, k) for k in range(COUNT)])
    uid = getattr(pydicom.uid, syntax)
    if syntax == "RLELossless":
        data.compress(uid)
    elif syntax == "JPEG2000Lossless":
        data = compress_by_simpleitk(tmp_path, data)
    elif syntax == "ExplicitVRBigEndian":
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = uid
    little, implicit = syntax != "ExplicitVRBigEndian", syntax == "ImplicitVRLittleEndian"
    pydicom.dcmwrite(tmp_path / "a.dcm", data, implicit_vr=implicit, little_endian=little)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.dcm").volume, stack)


def compress_by_simpleitk(folder, data):
    """Return the object with its pixels packed as JPEG 2000, which pydicom alone cannot do."""
    sitk = frames.load("SimpleITK")
    pixels = np.frombuffer(data.PixelData, "<u2").reshape(-1, data.Rows, data.Columns)
    packed = []
    for picture in pixels:
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(folder / "packed.dcm"))
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG2000")
        writer.Execute(sitk.GetImageFromArray(picture[None]))
        part = pydicom.dcmread(folder / "packed.dcm")
        packed += pydicom.encaps.generate_frames(part.PixelData, number_of_frames=1)
    data.PixelData = pydicom.encaps.encapsulate(packed)
    data["PixelData"].is_undefined_length = True
    return data


CLAIMS = {
    "more pixels than bytes": ({"Rows": 20000, "Columns": 20000}, "is truncated: .* cannot hold"),
    "more frames than bytes": ({"NumberOfFrames": 30000}, "is truncated: .* cannot hold"),
    "impossible bits": ({"BitsStored": 12, "HighBit": 3}, "impossible bits"),
    "axes that coincide": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "axes .* coincide"),
    "no number": ({"PixelSpacing": [1e400, 1]}, "not finite|finds no DICOM slice"),
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("packed", [False, True])
def test_claims_are_refused_before_anything_is_decoded(tmp_path, monkeypatch, claim, packed):
    fields, reason = CLAIMS[claim]
    data = placed(with_pixels(dataset(), volume()[:, :, 0]))
    if packed:
        data.compress(pydicom.uid.RLELossless)
        monkeypatch.setattr(frames, "_decode_packed", lambda data: pytest.fail("was decoded"))
    for name, value in fields.items():
        setattr(data, name, value)
    save(data, tmp_path / "a.dcm")
    if packed and claim == "impossible bits":
        return
    with pytest.raises(ScanError, match=reason):
        read_scan(tmp_path / "a.dcm")


def test_a_field_longer_than_its_file_is_refused(tmp_path):
    path = save(placed(with_pixels(dataset(), volume()[:, :, 0])), tmp_path / "a.dcm")
    raw = path.read_bytes()
    at = raw.rindex(b"OW") + 4  # the length of the pixels
    path.write_bytes(raw[:at] + (2_400_000_000).to_bytes(4, "little") + raw[at + 4 :])
    with pytest.raises(ScanError, match="one of its fields claims 2400000000 bytes"):
        read_scan(path)


def test_deflated_files_that_may_hold_gigabytes_are_not_unpacked(tmp_path, monkeypatch):
    data = placed(with_pixels(dataset(), volume()[:, :, 0]))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    save(data, tmp_path / "a.dcm")
    monkeypatch.setattr(frames, "LARGEST_VOLUME", 1000)
    with pytest.raises(ScanError, match="its deflated bytes may hold more than 1 GiB"):
        read_scan(tmp_path / "a.dcm")


@pytest.mark.parametrize("place", [8, 24])  # the stream's width, that of its tiles
def test_a_jpeg_2000_stream_of_another_size_is_not_decoded(tmp_path, place):
    data = compress_by_simpleitk(tmp_path, objects.enhanced([volume()], [(0, 0)]))
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    raw = bytearray(save(data, tmp_path / "a.dcm").read_bytes())
    at = raw.index(frames.JPEG2000) + place
    raw[at : at + 4] = (2**30).to_bytes(4) if place == 8 else bytes(4)
    (tmp_path / "a.dcm").write_bytes(raw)
    with pytest.raises(ScanError, match="voxels of one of its files cannot be read"):
        read_scan(tmp_path / "a.dcm")
