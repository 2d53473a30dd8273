"""A DICOM file → its frames: where each is, what it shows, and what it takes to decode it.

pydicom reads the headers, SimpleITK the voxels (the extra `dicom`). Only size, spacing, position
and orientation are read, the kind of object, and the numbers that tell files, series and studies
from one another; no other field of a header is, and none leaves `scans`.
"""

import importlib
import importlib.util
import math
import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.scans.header import DEFLATE_RATIO, LARGEST_VOLUME, UNREADABLE, Refused

STORAGE: Final = r"1\.2\.840\.10008\.5\.1\.4\.1\.1\."
IMAGE: Final = re.compile(STORAGE + r"(?!4\.2$)([1-467]|12|13|20|30|128|130)(\.|$)")
SEGMENTATION_CLASS: Final = re.compile(STORAGE + r"66\.4$")
DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
UNPACKED: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
FAILURES: Final = (*UNREADABLE, AttributeError, NotImplementedError, RecursionError, struct.error)
UNDEFINED: Final = 0xFFFFFFFF
MOST_FRAMES: Final = 2**16
NO_SLICE: Final = "is damaged: SimpleITK finds no DICOM slice in one of its files"

# what a file or series is that shows no volume, and why reading it alone is refused
REPORT: Final = "report or other object without a picture"
COLOUR: Final = "picture in colour, such as a screenshot"
SEGMENTATION: Final = "segmentation"
MOSAIC: Final = "mosaic"
WHY: Final = {
    REPORT: "holds no picture: it is a report or another DICOM object",
    COLOUR: "holds no intensities: its slices are in colour or no slices",
    SEGMENTATION: "holds no intensities: it is a segmentation",
    MOSAIC: "is a Siemens mosaic, all slices tiled in one picture: convert it to NIfTI (dcm2niix)",
}


@dataclass(frozen=True)
class Frame:
    """One slice of a file, in DICOM's own axes: left, posterior, superior.

    `frame` counts within the file. `kind` is empty for a slice of a volume. `placed` says whether
    its position is stored, `turned` whether its orientation is.
    """

    path: Path
    series: str
    instance: int
    size: tuple[int, ...]  # columns, rows
    item_bytes: int
    spacing: NDArray[np.float64]
    origin: NDArray[np.float64]
    direction: NDArray[np.float64]  # (3, 3), one column per axis
    frame: int = 0
    study: str = ""
    uid: str = ""
    kind: str = ""
    placed: bool = True
    turned: bool = True
    scaling: tuple[float, float] | None = None  # slope and intercept of this frame alone
    localizer: bool = False
    inverted: bool = False  # white is 0

    @property
    def depth_mm(self) -> float:
        """Position along the normal of the frame's plane."""
        return float(self.direction[:, 2] @ self.origin)


def read_frames(path: Path) -> list[Frame]:
    """Return the frames of a file in stored order; one of a kind for what shows no slices.

    Raises
    ------
    Refused
        It is damaged, or claims more than it can hold.
    InputError
        pydicom or SimpleITK is not installed.
    """
    pydicom = load("pydicom")
    if not path.is_file():
        raise Refused("cannot be read: one of its files is missing or no file")
    stored = path.stat().st_size
    with path.open("rb") as file:
        deflated = DEFLATED in file.read(1024)
    if deflated and stored * DEFLATE_RATIO > LARGEST_VOLUME:
        raise Refused("is too large: its deflated bytes may hold more than 1 GiB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # our own messages say what is wrong with a file
        try:
            dataset = pydicom.dcmread(path, force=True, defer_size=2**12)
            _check_lengths(dataset, stored * DEFLATE_RATIO if deflated else stored)
            return _frames(path, dataset, stored)
        except PermissionError:
            raise
        except FAILURES as error:
            raise Refused(NO_SLICE) from error


def _check_lengths(dataset: Any, stored: int) -> None:
    """Refuse a field that claims to be longer than the file: decoding would allocate its claim."""
    for element in list(dataset.values()):
        length = getattr(element, "length", 0)
        if length != UNDEFINED and length > stored:
            raise Refused(f"is damaged: one of its fields claims {length} bytes")
        if (element.VR or _vr(element.tag)) == "SQ":
            for item in dataset[element.tag].value:
                _check_lengths(item, stored)


def _vr(tag: Any) -> str:
    """Return the type of a field in a file that states none."""
    datadict = load("pydicom").datadict
    return str(datadict.dictionary_VR(tag)) if datadict.dictionary_has_tag(tag) else ""


def _frames(path: Path, dataset: Any, stored: int) -> list[Frame]:
    rows, columns = (int(dataset.get(name) or 0) for name in ("Rows", "Columns"))
    sop_class = str(dataset.get("SOPClassUID") or "")
    numbers = {
        "series": str(dataset.get("SeriesInstanceUID") or ""),
        "study": str(dataset.get("StudyInstanceUID") or ""),
        "uid": str(dataset.get("SOPInstanceUID") or ""),
        "instance": _whole(dataset.get("InstanceNumber")),
    }
    if not (rows and columns) or not _has_pixels(dataset):
        if not sop_class or IMAGE.match(sop_class):
            raise Refused(NO_SLICE)
        zeros = np.zeros(3)
        return [Frame(path, size=(0, 0), item_bytes=0, spacing=zeros + 1, origin=zeros,
                      direction=np.eye(3), kind=REPORT, **numbers)]  # fmt: skip
    image_type = {str(word).upper() for word in dataset.get("ImageType") or ()}
    kind = ""
    if SEGMENTATION_CLASS.match(sop_class):
        kind = SEGMENTATION
    elif int(dataset.get("SamplesPerPixel") or 1) > 1:
        kind = COLOUR
    elif "MOSAIC" in image_type:
        kind = MOSAIC
    count = max(1, _whole(dataset.get("NumberOfFrames")))
    item_bytes = _check_claim(dataset, rows * columns, count, stored)
    localizer = bool(image_type & {"LOCALIZER", "SCOUT"})
    inverted = str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1"
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    return [
        Frame(path, size=(columns, rows), item_bytes=item_bytes, frame=number, kind=kind,
              localizer=localizer, inverted=inverted, **numbers, **_place(places, number))
        for number in range(count)
        for places in [[*groups[number : number + 1], *shared, dataset]]
    ]  # fmt: skip


def _has_pixels(dataset: Any) -> bool:
    names = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    return any(name in dataset for name in names)


def _check_claim(dataset: Any, pixels: int, count: int, stored: int) -> int:
    """Refuse a file that claims more pixels than it can hold; return the bytes of a decoded one."""
    bits = max(8, int(dataset.get("BitsAllocated") or 16))
    claimed = pixels * count * bits // 8
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    packed = syntax is not None and syntax not in UNPACKED
    most = stored * DEFLATE_RATIO if packed else stored
    if claimed > most:
        raise Refused(
            f"is truncated: {stored} bytes cannot hold the {claimed} that its header claims"
        )
    if count > MOST_FRAMES:
        raise Refused(f"is too large: it claims {count} frames")
    return 8 if bits > 32 else 4


def _place(places: Sequence[Any], number: int) -> dict[str, Any]:
    """Return spacing, origin and direction of a frame: its own, else what all frames share."""
    position = _numbers(places, "PlanePositionSequence", "ImagePositionPatient", 3)
    turn = _numbers(places, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    measures = "PixelMeasuresSequence"
    pixel = _numbers(places, measures, "PixelSpacing", 2)
    if pixel is None:
        pixel = _numbers(places, measures, "ImagerPixelSpacing", 2)
    depth = _numbers(places, measures, "SpacingBetweenSlices", 1)
    if depth is None or not depth[0]:
        depth = _numbers(places, measures, "SliceThickness", 1)
    slope, intercept = (
        _numbers(places[:-1], "PixelValueTransformationSequence", name, 1)
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    along, down = np.eye(3)[:2] if turn is None else turn.reshape(2, 3)
    direction = np.column_stack([along, down, np.cross(along, down)])
    lengths = np.sqrt((direction**2).sum(axis=0))
    if lengths.min() < 0.5:
        raise Refused("is damaged: the axes of its slices coincide")
    down_mm, along_mm = (1.0, 1.0) if pixel is None else pixel  # rows first
    depth_mm = abs(float(depth[0])) if depth is not None and depth[0] else 1.0
    direction = direction / lengths
    origin = direction[:, 2] * depth_mm * number if position is None else position
    scaling = None if slope is None or intercept is None else (float(slope[0]), float(intercept[0]))
    return {
        "spacing": np.array([along_mm, down_mm, depth_mm]),
        "origin": origin,
        "direction": direction,
        "placed": position is not None,
        "turned": turn is not None,
        "scaling": scaling,
    }


def _numbers(
    places: Sequence[Any], sequence: str, name: str, count: int
) -> NDArray[np.float64] | None:
    """Return a field from the first place that has it, in a functional group or not."""
    for place in places:
        for held in (*_first(place.get(sequence)), place):
            value = held.get(name)
            if value is None or value == "":
                continue
            numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
            if numbers.shape != (count,) or not np.isfinite(numbers).all():
                raise Refused("is damaged: its header holds numbers that are not finite")
            return numbers
    return None


def _first(sequence: Any) -> list[Any]:
    return list(sequence[:1]) if sequence else []


def _whole(value: Any) -> int:
    number = float(value) if value not in (None, "") else 0.0
    return int(number) if math.isfinite(number) and 0 <= number < 2**31 else 0


def read_voxels(path: Path) -> NDArray[Any]:
    """Return the voxels of one file, (I, J, frames), rescaled as its header says."""
    try:
        stored = load("SimpleITK").GetArrayFromImage(_open(path).Execute())  # (K, J, I)
    except RuntimeError:
        raise Refused("is damaged: the voxels of one of its files cannot be read") from None
    if stored.ndim != 3:
        raise Refused(WHY[COLOUR])
    return stored.transpose(2, 1, 0)


def _open(path: Path) -> Any:
    """Return SimpleITK's reader of a file, without private fields."""
    reader = load("SimpleITK").ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.LoadPrivateTagsOff()
    reader.SetFileName(str(path))
    return reader


def is_installed() -> bool:
    """Return whether pydicom and SimpleITK are there."""
    return all(importlib.util.find_spec(name) for name in ("SimpleITK", "pydicom"))


@cache
def load(name: str) -> Any:
    """Return SimpleITK or pydicom, silenced: our own messages say what is wrong with a file."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        raise InputError(
            "Reading DICOM series needs SimpleITK and pydicom: pip install 'headscope[dicom]'."
        ) from None
    if name == "SimpleITK":
        module.ProcessObject.SetGlobalWarningDisplay(False)
    else:
        module.config.settings.reading_validation_mode = module.config.IGNORE
        module.config.logger.disabled = True
    return module
