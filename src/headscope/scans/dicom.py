"""A DICOM series → its header and voxels, by SimpleITK (the extra `dicom`).

A series is a folder of files, or, where a folder holds several series, the first file of one.
Only size, spacing, position and orientation are read, and the number that tells one series from
another; no other field of the header is, and none leaves this module.
"""

import importlib
import importlib.util
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.scans.header import LARGEST_VOLUME, Header, Refused, choose_volume

SERIES: Final = "0020|000e"
INSTANCE: Final = "0020|0013"
MAGIC: Final = (128, b"DICM")
JITTER: Final = 0.1  # how far distances between slices may differ, as a share of them


@dataclass(frozen=True)
class _File:
    """The geometry of one file, in DICOM's own axes: left, posterior, superior."""

    path: Path
    series: str
    instance: int
    size: tuple[int, int, int]
    item_bytes: int
    spacing: NDArray[np.float64]
    origin: NDArray[np.float64]
    direction: NDArray[np.float64]  # (3, 3), one column per axis

    @property
    def depth_mm(self) -> float:
        """Position along the normal of the file's plane."""
        return float(self.direction[:, 2] @ self.origin)


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: by its suffix, or by the magic word where there is none."""
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    if path.name == "DICOMDIR" or (path.suffix and not path.suffix[1:].isdigit()):
        return False  # numbers joined by dots are a common name for a file of a series
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(MAGIC[0] + 4)[MAGIC[0] :] == MAGIC[1]
    except OSError:
        return False


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder, sorted, without those of its subfolders."""
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in paths if is_dicom(path))


def find_series(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return a path for each series of a folder: the folder, or the first file of each.

    Without SimpleITK the folder counts as one series; reading it then names what is missing.
    """
    if importlib.util.find_spec("SimpleITK") is None:
        return [folder]
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(files):
        try:
            groups[_read_file(path).series].append(path)
        except Refused:
            groups[""].append(path)
    unread = groups.pop("", [])  # damaged, or without a number of its series
    if len(groups) < 2:
        return [folder]
    return sorted([*(paths[0] for paths in groups.values()), *unread])


def read_series(path: Path, volume: int | None) -> tuple[Header, NDArray[Any]]:
    """Return the header of a series and its voxels (I, J, K) in stored order.

    `volume` chooses one of several volumes at the same positions, from 0.

    Raises
    ------
    Refused
        A file is damaged, slices are missing, or they differ in size or orientation.
    InputError
        SimpleITK is not installed.
    """
    files = _files_of(path)
    first = files[0]
    for other in files[1:]:
        if other.size != first.size or not np.allclose(other.spacing[:2], first.spacing[:2], 1e-3):
            raise Refused("mixes slices of different size")
        if not np.allclose(other.direction, first.direction, atol=1e-3):
            raise Refused("mixes slices of different orientation")
    if len(files) > 1 and first.size[2] > 1:
        raise Refused(f"holds {len(files)} files of several slices each: give them one by one")
    bytes_claimed = len(files) * math.prod(first.size) * first.item_bytes
    if bytes_claimed > LARGEST_VOLUME:
        raise Refused(f"is too large: it claims {bytes_claimed / 2**30:.3g} GiB of voxels")
    files = _one_volume(files, volume)
    voxels = np.concatenate([_read_voxels(file) for file in files], axis=2)  # (I, J, K)
    return Header(path, voxels.shape, voxels.dtype, 0, _affine(files), True, 1.0, 0.0), voxels


def _files_of(path: Path) -> list[_File]:
    """Return the files of a series in the order of their depth."""
    if not path.is_dir():
        file = _read_file(path)
        files = [file, *_others_of(file)]
    else:
        _simpleitk()  # a missing package is said before anything about the folder
        files = [_read_file(file) for file in dicom_files(path)]
        if not files:
            raise Refused("is a folder without DICOM files")
        if len({file.series for file in files}) > 1:
            raise Refused("holds several DICOM series: name the first file of one")
    return sorted(files, key=lambda file: (file.depth_mm, file.instance, file.path))


def _others_of(file: _File) -> list[_File]:
    """Return the other files of a file's series.

    A file of the folder that cannot be read may be of this series, which would then be too short.
    """
    try:
        files = [_read_file(path) for path in dicom_files(file.path.parent) if path != file.path]
    except Refused as error:
        raise Refused(f"is beside a file that may belong to it and {error}") from None
    return [other for other in files if other.series == file.series]


def _one_volume(files: list[_File], volume: int | None) -> list[_File]:
    """Choose one of several volumes (echoes, repetitions), and refuse a series with gaps."""
    step = min(file.spacing[2] for file in files)
    depths: list[list[_File]] = []
    for file in files:
        if depths and file.depth_mm - depths[-1][0].depth_mm < 0.01 * max(step, 0.01):
            depths[-1].append(file)
        else:
            depths.append([file])
    for same in depths:  # equal depths may differ by rounding: the numbers order the volumes
        same.sort(key=lambda file: (file.instance, file.path))
    counts = {len(same) for same in depths}
    if len(counts) > 1:
        raise Refused("is incomplete: some of its slices occur more often than others")
    number = choose_volume(counts.pop(), volume)
    gaps = np.diff([same[0].depth_mm for same in depths])
    if len(gaps) and gaps.max() > (1 + JITTER) * np.median(gaps) + 0.01:
        raise Refused(f"lacks slices: they are {gaps.min():.3g} to {gaps.max():.3g} mm apart")
    return [same[number] for same in depths]


def _affine(files: list[_File]) -> NDArray[np.float64]:
    """Return the affine (4, 4) in millimetres of RAS."""
    affine = np.eye(4)
    affine[:3, :3] = files[0].direction * files[0].spacing
    if len(files) > 1:
        affine[:3, 2] = (files[-1].origin - files[0].origin) / (len(files) - 1)
    affine[:3, 3] = files[0].origin
    affine[:2] *= -1  # the axes of DICOM run to the left and to the back
    return affine


def _open(path: Path) -> Any:
    """Return SimpleITK's reader of a file, without private fields."""
    reader = _simpleitk().ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.LoadPrivateTagsOff()
    reader.SetFileName(str(path))
    return reader


def _read_file(path: Path) -> _File:
    reader = _open(path)
    if not path.is_file():
        raise Refused("cannot be read: one of its files is missing or no file")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise Refused("is damaged: SimpleITK finds no DICOM slice in one of its files") from None
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise Refused("holds no intensities: its slices are in colour or no slices")
    spacing, origin = np.array(reader.GetSpacing()), np.array(reader.GetOrigin())
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    if not all(np.isfinite(numbers).all() for numbers in (spacing, origin, direction)):
        raise Refused("is damaged: its header holds numbers that are not finite")
    width, height, depth = map(int, reader.GetSize())
    instance = _field(reader, INSTANCE)
    return _File(
        path=path,
        series=_field(reader, SERIES),
        instance=int(instance) if instance.isdecimal() and len(instance) < 10 else 0,
        size=(width, height, depth),
        item_bytes=8 if "64" in _simpleitk().GetPixelIDValueAsString(reader.GetPixelID()) else 4,
        spacing=spacing,
        origin=origin,
        direction=direction,
    )


def _read_voxels(file: _File) -> NDArray[Any]:
    """Return the voxels of one file, (I, J, 1), rescaled as its header says."""
    try:
        stored = _simpleitk().GetArrayFromImage(_open(file.path).Execute())  # (K, J, I)
    except RuntimeError:
        raise Refused("is damaged: the voxels of one of its files cannot be read") from None
    if stored.ndim != 3:
        raise Refused("holds no intensities: its slices are in colour or no slices")
    return stored.transpose(2, 1, 0)


def _field(reader: Any, tag: str) -> str:
    return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""


@cache
def _simpleitk() -> Any:
    """Return the module, silenced: our own messages say what is wrong with a file."""
    try:
        sitk = importlib.import_module("SimpleITK")
    except ImportError:
        raise InputError(
            "Reading DICOM series needs SimpleITK: pip install 'headscope[dicom]'."
        ) from None
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk
