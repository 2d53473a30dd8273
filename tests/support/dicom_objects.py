"""DICOM objects of every kind that an export holds; importing this skips without pydicom."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="DICOM needs pydicom: pip install '.[dicom]'")
pytest.importorskip("SimpleITK", reason="DICOM needs SimpleITK: pip install '.[dicom]'")

MR, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
SCREENSHOT, REPORT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.11"
DOCUMENT, PRESENTATION = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.11.1"
SEGMENTATION, SIEMENS_DATA = "1.2.840.10008.5.1.4.1.1.66.4", "1.3.12.2.1107.5.9.1"
SPACING = 6.0  # mm, along every axis
AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


def volume(seed=0, shape=(12, 10, 8)):
    """Without any symmetry, in RAS."""
    return np.random.default_rng(seed).integers(1, 4000, shape).astype(np.uint16)


def dataset(sop_class=MR, series="1.2.3", study="1.2", number=1, **fields):
    """An object without pixels."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    data.SeriesInstanceUID, data.StudyInstanceUID = series, study
    data.Modality, data.InstanceNumber = "MR", number
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    for name, value in fields.items():
        setattr(data, name, value)
    return data


def with_pixels(data, pixels, colours=1):
    """Give an object pixels of 8 or 16 bits: (frames, rows, columns) or (rows, columns)."""
    shape = pixels.shape[:-1] if colours > 1 else pixels.shape
    data.Rows, data.Columns = shape[-2:]
    data.SamplesPerPixel = colours
    data.PhotometricInterpretation = "RGB" if colours > 1 else "MONOCHROME2"
    if colours > 1:
        data.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, 0
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    return data


def save(data, path):
    """Write an object and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def placed(data, turn=AXIAL, position=(0.0, 0.0, 0.0)):
    """Say where the slice of an object is."""
    data.ImageOrientationPatient, data.ImagePositionPatient = turn, list(position)
    data.PixelSpacing, data.SliceThickness = [SPACING, SPACING], SPACING
    return data


def picture_of(ras, k):
    """Return the axial slice (rows, columns) as scanners store it, front first and right first."""
    return ras[::-1, ::-1, k].T


def write_axial(folder, ras, series="1.2.3", names="IM{:03d}.dcm", edit=None, skip=(), **fields):
    """Write a volume as one file per axial slice."""
    for k in range(ras.shape[2]):
        data = dataset(series=series, number=k + 1, **fields)
        placed(with_pixels(data, picture_of(ras, k)), position=(0, 0, k * SPACING))
        if edit is not None:
            edit(data, k)
        if k not in skip:
            save(data, folder / names.format(k))
    return folder


def write_localizer(folder, series="1.2.99", names="loc{}.dcm", **fields):
    """Write one slice in each of the three planes."""
    for number, turn in enumerate((AXIAL, CORONAL, SAGITTAL)):
        data = with_pixels(dataset(series=series, number=number + 1, **fields), volume()[:, :, 0])
        save(placed(data, turn, (-30.0, -30.0, 20.0)), folder / names.format(number))


def enhanced(ras, order, scaling=None):
    """Return a multi-frame object whose frames are the slices (volume number, k) of `order`."""
    data = dataset(ENHANCED, NumberOfFrames=len(order))
    turn, measures = pydicom.Dataset(), pydicom.Dataset()
    turn.ImageOrientationPatient = AXIAL
    measures.PixelSpacing, measures.SliceThickness = [SPACING, SPACING], SPACING
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, (_, k) in enumerate(order):
        group, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, k * SPACING]
        group.PlanePositionSequence = [place]
        if scaling is not None:
            values = pydicom.Dataset()
            values.RescaleSlope, values.RescaleIntercept = scaling[number]
            group.PixelValueTransformationSequence = [values]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    return with_pixels(data, np.stack([picture_of(ras[number], k) for number, k in order]))
