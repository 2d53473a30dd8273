"""A DICOM file → its frames: where each is, what it shows, and what it takes to decode it.

pydicom reads the headers, SimpleITK the voxels (the extra `dicom`). Only size, spacing, position
and orientation are read, the kind of object, and the numbers that tell files, series, studies and
subjects from one another; no other field of a header is, and none leaves `scans`.
"""

import importlib
import importlib.util
import io
import math
import re
import struct
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
FAILURES: Final = (*UNREADABLE, AttributeError, RuntimeError, struct.error, StopIteration)
UNDEFINED: Final = 0xFFFFFFFF
STUDY: Final = ("StudyInstanceUID", "PatientID")  # compared, and not kept
PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
COPIED: Final = (
    *("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit"),
    "PixelRepresentation",
)
SINGLE_SLICES: Final = "1.2.840.10008.5.1.4.1.1.7.3"  # many grey slices without a place
NO_VOXELS: Final = "is damaged: the voxels of one of its files cannot be read"
JPEG2000: Final = b"\xff\x4f\xff\x51"
MOST_TILES: Final = 2**10
MOST_FRAMES: Final = 2**16
NO_SLICE: Final = "is damaged: SimpleITK finds no DICOM slice in one of its files"

# what a file or series is that shows no volume, and why reading it alone is refused
REPORT: Final = "report or other object without a picture"
COLOUR: Final = "picture in colour, such as a screenshot"
SEGMENTATION: Final = "segmentation"
MOSAIC: Final = "mosaic"
LOCALIZER: Final = "localizer"
ASIDE: Final = {  # words of ImageType
    LOCALIZER: {"LOCALIZER", "SCOUT"},
    "projection": {"MIP", "MINIP", "MNIP", "PROJECTION IMAGE"},
    "phase image": {"P", "PHASE", "PHASE MAP"},
}
WHY: Final = {
    REPORT: "holds no picture: it is a report or another DICOM object",
    COLOUR: "holds no intensities: its slices are in colour or no slices",
    SEGMENTATION: "holds no intensities: it is a segmentation",
    MOSAIC: "is a Siemens mosaic, all slices tiled in one picture: convert it to NIfTI (dcm2niix)",
}


@dataclass(frozen=True)
class Frame:
    """One slice of a file, in DICOM's own axes: left, posterior, superior.

    `frame` counts within the file. `kind` is empty for a slice of a volume.
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
    lacks: tuple[str, ...] = ()  # which of position, orientation and spacing are not stored
    scaling: tuple[float, float] = (1.0, 0.0)  # slope and intercept
    aside: str = ""  # what is shown instead of anatomy, where a volume is there
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
    if not path.is_file():
        raise Refused("cannot be read: one of its files is missing or no file")
    return _parse(path, lambda dataset: _frames(path, dataset, path.stat().st_size), NO_SLICE)


class _Bounded(io.BufferedReader):
    """A file of which no more is asked than it holds: Python makes room for what is asked."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        super().__init__(io.FileIO(str(path)))  # pydicom opens it again by its name
        self.stored = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes, which a damaged field may claim to be gigabytes."""
        return super().read(size if size is None else min(size, self.stored))


def _parse(path: Path, use: Callable[[Any], Any], reason: str) -> Any:
    """Return what `use` makes of a file's fields; pydicom reads long ones when they are asked for.

    Whatever damaged fields raise becomes a refusal for this reason.
    """
    pydicom = load("pydicom")
    stored = path.stat().st_size
    with path.open("rb") as file:
        deflated = DEFLATED in file.read(1024)
    if deflated and stored * DEFLATE_RATIO > LARGEST_VOLUME:
        raise Refused("is too large: its deflated bytes may hold more than 1 GiB")
    with warnings.catch_warnings(), _Bounded(path) as file:
        warnings.simplefilter("ignore")  # our own messages say what is wrong with a file
        try:
            dataset = pydicom.dcmread(file, force=True, defer_size=2**12)
            longest = max(getattr(field, "length", 0) % UNDEFINED for field in dataset.values())
            if longest > stored * (DEFLATE_RATIO if deflated else 1):
                raise Refused(f"is damaged: one of its fields claims {longest} bytes")
            return use(dataset)
        except PermissionError:
            raise
        except (*FAILURES, pydicom.errors.BytesLengthException) as error:
            raise Refused(reason) from error


def _frames(path: Path, dataset: Any, stored: int) -> list[Frame]:
    rows, columns = (int(dataset.get(name) or 0) for name in ("Rows", "Columns"))
    sop_class = str(dataset.get("SOPClassUID") or "")
    image_type = {str(word).upper() for word in dataset.get("ImageType") or ()}
    base = Frame(
        path=path,
        series=str(dataset.get("SeriesInstanceUID") or ""),
        instance=_whole(dataset.get("InstanceNumber")),
        size=(columns, rows),
        item_bytes=0,
        spacing=np.ones(3),
        origin=np.zeros(3),
        direction=np.eye(3),
        study="\n".join(str(dataset.get(name) or "") for name in STUDY),
        uid=str(dataset.get("SOPInstanceUID") or ""),
        kind=_kind(sop_class, image_type, dataset),
        aside=next((what for what, words in ASIDE.items() if image_type & words), ""),
        inverted=str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1",
    )
    if not (rows and columns) or not any(name in dataset for name in PIXELS):
        if not sop_class or IMAGE.match(sop_class):
            raise Refused(NO_SLICE)
        return [replace(base, kind=REPORT)]
    count = max(1, _whole(dataset.get("NumberOfFrames")))
    base = replace(base, item_bytes=_check_claim(dataset, rows * columns, count, stored))
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    return [
        replace(base, frame=n, **_place([*groups[n : n + 1], *shared, dataset], n))
        for n in range(count)
    ]


def _kind(sop_class: str, image_type: set[str], dataset: Any) -> str:
    """Return what an object with pixels is, empty for a slice of a volume."""
    if SEGMENTATION_CLASS.match(sop_class):
        return SEGMENTATION
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        return COLOUR
    return MOSAIC if "MOSAIC" in image_type else ""


def _check_claim(dataset: Any, pixels: int, count: int, stored: int) -> int:
    """Refuse a file that claims more pixels than it can hold; return the bytes of a decoded one."""
    bits = max(8, int(dataset.get("BitsAllocated") or 16))
    claimed = pixels * count * bits // 8
    packed = dataset.file_meta.get("TransferSyntaxUID", UNPACKED[0]) not in UNPACKED
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
        _numbers(places, "PixelValueTransformationSequence", name, 1)
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    along, down = np.eye(3)[:2] if turn is None else turn.reshape(2, 3)
    direction = np.column_stack([along, down, np.cross(along, down)])
    lengths = np.sqrt((direction**2).sum(axis=0))
    if lengths.min() < 0.5:
        raise Refused("is damaged: the axes of its slices coincide")
    stored = {"position": position, "orientation": turn, "spacing": pixel}
    lacks = tuple(name for name, value in stored.items() if value is None)
    down_mm, along_mm = (1.0, 1.0) if pixel is None else pixel  # rows first
    depth_mm = abs(float(depth[0])) if depth is not None and depth[0] else 1.0
    direction = direction / lengths
    origin = direction[:, 2] * depth_mm * number if position is None else position
    scaling = (
        1.0 if slope is None or not slope[0] else float(slope[0]),
        0.0 if intercept is None else float(intercept[0]),
    )
    return {
        "spacing": np.array([along_mm, down_mm, depth_mm]),
        "origin": origin,
        "direction": direction,
        "lacks": lacks,
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
    """Return the voxels of one file, (I, J, frames), as stored."""
    stored: NDArray[Any] = _parse(path, _decode, NO_VOXELS)  # (K, J, I)
    return stored.transpose(2, 1, 0)


def _decode(dataset: Any) -> NDArray[Any]:
    """Return the pixels (frames, rows, columns) of a file."""
    pixel = next(name for name in PIXELS if name in dataset)
    bits, syntax = int(dataset.get("BitsAllocated") or 16), _syntax(dataset)
    if pixel == "PixelData" and (bits not in (8, 16, 32) or syntax not in UNPACKED):
        return _decode_packed(dataset)
    kind = "f" if pixel != "PixelData" else "ui"[int(dataset.get("PixelRepresentation") or 0) == 1]
    order = ">" if syntax == UNPACKED[2] else "<"
    shape = (max(1, _whole(dataset.get("NumberOfFrames"))), dataset.Rows, dataset.Columns)
    values = np.frombuffer(dataset[pixel].value, f"{order}{kind}{bits // 8}", math.prod(shape))
    values = values.reshape(shape)
    used = int(dataset.get("BitsStored") or bits)
    high = int(dataset.get("HighBit") or used - 1)
    if kind == "f" or used == bits:
        return values
    if not 0 < used <= high + 1 <= bits:
        raise Refused("is damaged: its header claims impossible bits")
    return (values << (bits - 1 - high)) >> (bits - used)  # drops what others stored beside it


def _decode_packed(dataset: Any) -> NDArray[Any]:
    """Return the pixels of a compressed file by SimpleITK, which sees these and no other field.

    Lengths in damaged fields can make it allocate gigabytes.
    """
    pydicom, sitk = load("pydicom"), load("SimpleITK")
    clean = pydicom.Dataset()
    clean.file_meta = pydicom.dataset.FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = _syntax(dataset)
    clean.SOPClassUID = clean.file_meta.MediaStorageSOPClassUID = SINGLE_SLICES
    clean.SOPInstanceUID = clean.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    for name in COPIED:
        if name in dataset:
            setattr(clean, name, dataset[name].value)
    clean.SamplesPerPixel, clean.PhotometricInterpretation = 1, "MONOCHROME2"
    count = max(1, _whole(dataset.get("NumberOfFrames")))
    encaps = importlib.import_module("pydicom.encaps")
    packed = list(encaps.generate_frames(dataset.PixelData, number_of_frames=count))
    for frame in packed:
        _check_jpeg2000(frame, int(dataset.Rows), int(dataset.Columns))
    clean.PixelData = encaps.encapsulate(packed)
    clean["PixelData"].is_undefined_length = True
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "slice.dcm")
        pydicom.dcmwrite(path, clean, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(path)
        stored: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    if stored.ndim != 3:
        raise Refused(WHY[COLOUR])
    return stored


def _check_jpeg2000(frame: bytes, rows: int, columns: int) -> None:
    """Refuse a JPEG 2000 stream of another size than its slice, or of absurdly many tiles."""
    if not frame.startswith(JPEG2000):
        return
    right, lower, left, upper, wide, high = struct.unpack(">6I", frame[8:32])
    tiles = -(-right // max(wide, 1)) * -(-lower // max(high, 1))
    parts = int.from_bytes(frame[40:42])
    if (right - left, lower - upper, parts) != (columns, rows, 1) or tiles > MOST_TILES:
        raise Refused(NO_VOXELS)


def _syntax(dataset: Any) -> str:
    """Return how the pixels are stored; deflated fields are unpacked when they are read."""
    syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", "") or UNPACKED[0])
    return UNPACKED[1] if syntax == DEFLATED.decode() else syntax


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
