"""A DICOM series → its header and voxels.

A series is a folder of files, or, where a folder holds several series, the first file of one.
Exports hold localizers, reports, screenshots and reformats beside the series that is meant; of a
study the series with most slices is taken.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.scans.affine import geometry_notes
from headscope.scans.frames import (
    LOCALIZER,
    WHY,
    Frame,
    is_installed,
    load,
    read_frames,
    read_voxels,
)
from headscope.scans.header import LARGEST_VOLUME, Header, Refused, choose_volume

MAGIC: Final = (128, b"DICM")
SUFFIXES: Final = (".dcm", ".dicom", ".dic", ".ima")
OTHER: Final = (
    *(".nii", ".gz", ".hdr", ".img", ".mgh", ".mgz", ".mat", ".jpg", ".jpeg", ".png", ".tif"),
    *(".tiff", ".tsv", ".csv", ".txt", ".json", ".toml", ".xml", ".pdf", ".md", ".zip", ".npy"),
)
JITTER: Final = 0.1  # how far distances between slices may differ, as a share of them
STRAY: Final = 0.25  # of the slices of a series; fewer of another size or orientation are left out
SMALLER: Final = "series with fewer slices than another of the same study"


@dataclass(frozen=True)
class Series:
    """A series on disk: `path` names it, `kind` is empty where it shows a volume."""

    path: Path
    number: str = ""
    study: str = ""
    kind: str = ""
    single: bool = True  # one volume, not several at the same positions
    slices: int = 0
    files: int = 1


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: by its suffix, or by the magic word where that is unknown."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.name == "DICOMDIR" or path.suffix.lower() in OTHER:
        return False
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


def find_series(folder: Path, files: Sequence[Path]) -> list[Series]:
    """Return the series of a folder: its path is the folder where one of them shows a volume.

    Otherwise it is the first file of each. Files that cannot be read may belong to any, and are
    series of their own where there are several. Without SimpleITK and pydicom the folder counts as
    one series; reading it then names what is missing.
    """
    if not is_installed():
        return [Series(folder, files=len(files))]
    frames: list[Frame] = []
    unread: list[Path] = []
    for path in sorted(files):
        try:
            frames += read_frames(path)
        except Refused:
            unread.append(path)
    series = [_describe(group) for group in _by_series(frames).values()]
    volumes, left_out = choose_series(series)
    if len(volumes) + len(unread) < 2 or len(series) < 2:
        count = len(files) - sum(one.files for one in left_out)
        first = volumes[0] if volumes else Series(folder)
        whole = replace(first, path=folder, files=count)
        return [whole, *left_out]
    return [*series, *map(Series, unread)]


def choose_series(
    series: Iterable[Series], *, besides: bool = False
) -> tuple[list[Series], list[Series]]:
    """Return the series to take and those that are left out: what shows no volume, if any does.

    `besides` says that there are scans of other formats.

    Of the volumes of a study in one folder, or in folders side by side, that with most slices is
    taken, or all with as many; one volume goes before several at the same positions. Folders whose
    files name no study, or the same series, are apart.
    """
    series = list(series)
    volumes = [one for one in series if not one.kind]
    if not volumes and not besides:
        return series, []
    groups: dict[tuple[str, Path], list[Series]] = defaultdict(list)
    for one in volumes:
        alone = one.study[:1] in ("", "\n") and one.path.is_dir()  # no number of a study
        groups[one.study, one.path if alone else one.path.parent].append(one)
    taken = []
    for group in groups.values():
        best = max((one.single, one.slices) for one in group)
        alike = len({one.number for one in group}) < len(group)  # of several subjects after all
        taken += [
            one for one in group if alike or not one.slices or (one.single, one.slices) == best
        ]
    left_out = [
        one if one.kind else replace(one, kind=SMALLER) for one in series if one not in taken
    ]
    return taken, left_out


def _by_series(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.series or str(frame.path) * bool(frame.kind)].append(frame)
    return groups


def _describe(frames: Sequence[Frame]) -> Series:
    """Return what a series shows: slices in several planes are a localizer."""
    kinds = {frame.kind for frame in frames} - {""}
    planes = _planes(frames)
    kind = next(iter(sorted(kinds)), "")
    if not kind:
        several = len(planes[0]) < len(frames) * (1 - STRAY)
        kind = LOCALIZER if several else frames[0].aside
    depths = {round(frame.depth_mm, 2) for frame in planes[0]}
    return Series(
        path=min(frame.path for frame in frames),
        number=frames[0].series,
        study=frames[0].study,
        kind=kind,
        single=len(depths) == len(planes[0]),
        slices=len(depths),
        files=len({frame.path for frame in frames}),
    )


def _planes(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return frames by size, spacing and orientation, the most frequent first."""
    planes: list[list[Frame]] = []
    for frame in frames:
        for plane in planes:
            first = plane[0]
            if (
                frame.size == first.size
                and np.allclose(frame.spacing[:2], first.spacing[:2], 1e-3)
                and np.allclose(frame.direction, first.direction, atol=1e-3)
            ):
                plane.append(frame)
                break
        else:
            planes.append([frame])
    return sorted(planes, key=len, reverse=True)


def read_series_header(path: Path) -> tuple[Header, list[list[Frame]]]:
    """Return the header of a series and, from the lowest depth up, the frames at each depth.

    Where several volumes are at the same positions (echoes, repetitions), the header's shape has a
    fourth axis, and each depth a frame of each.

    Raises
    ------
    Refused
        A file is damaged, slices are missing, or they differ in size or orientation.
    InputError
        SimpleITK or pydicom is not installed.
    """
    load("SimpleITK")  # a missing package is said before anything about the folder
    notes: list[str] = []
    frames = _without_copies(_series_at(path), notes)
    if frames[0].kind:
        raise Refused(WHY[frames[0].kind])
    frames = _one_plane(frames, notes)
    first = frames[0]
    bytes_claimed = len(frames) * math.prod(first.size) * first.item_bytes
    if bytes_claimed > LARGEST_VOLUME:
        raise Refused(f"is too large: it claims {bytes_claimed / 2**30:.3g} GiB of voxels")
    if "position" in first.lacks and len({frame.path for frame in frames}) > 1:
        raise Refused("stores no positions of its slices, so that their order is unknown")
    if first.aside:
        notes.append(f"The DICOM series is a {first.aside}, by its ImageType")
    if first.lacks:
        what = " and no ".join(first.lacks)
        notes.append(f"The DICOM file stores no {what}; it is taken as axial, of pixels of 1 mm")
    stored = [frame.depth_mm for frame in sorted(frames, key=lambda frame: frame.frame)]
    if first.path == frames[-1].path and not _is_sorted(stored):
        notes.append("The frames of the DICOM file are out of order and are sorted by position")
    if first.inverted:
        notes.append("The DICOM series stores white as 0 and is inverted")
    depths = _by_depth(frames)
    affine = _affine([same[0] for same in depths])
    shape = (*first.size[:2], len(depths), len(depths[0]))
    notes += geometry_notes(affine, shape, oriented=True)
    numbers = np.dtype(np.float64 if first.item_bytes == 8 else np.float32)
    header = Header(
        path,
        shape,
        numbers,
        offset=0,
        affine=affine,
        oriented=True,
        slope=1.0,
        intercept=0.0,
        notes=tuple(notes),
    )
    return header, depths


def read_series(path: Path, volume: int | None) -> tuple[Header, NDArray[Any]]:
    """Return the header of a series and its voxels (I, J, K) in stored order.

    `volume` chooses one of several volumes at the same positions, from 0. What `read_series_header`
    raises is raised.
    """
    header, depths = read_series_header(path)
    number = choose_volume(len(depths[0]), volume)
    voxels = _read_voxels([same[number] for same in depths])  # (I, J, K)
    if depths[0][0].inverted:
        voxels = voxels.max() - voxels
    return replace(header, shape=voxels.shape, dtype=voxels.dtype), voxels


def _series_at(path: Path) -> list[Frame]:
    """Return the frames of the series that a path names."""
    if path.is_dir():
        frames = [frame for file in dicom_files(path) for frame in read_frames(file)]
        if not frames:
            raise Refused("is a folder without DICOM files")
        groups = _by_series(frames)
        taken = choose_series(map(_describe, groups.values()))[0]
        if len(taken) > 1 and len(groups) > 1:
            raise Refused("holds several DICOM series: name the first file of one")
        return next(group for group in groups.values() if _describe(group) == taken[0])
    frames = read_frames(path)
    try:
        others = [read_frames(file) for file in dicom_files(path.parent) if file != path]
    except Refused as error:
        raise Refused(f"is beside a file that may belong to it and {error}") from None
    series = frames[0].series
    return [*frames, *(frame for file in others for frame in file if frame.series == series)]


def _without_copies(frames: list[Frame], notes: list[str]) -> list[Frame]:
    """Drop files that are stored twice, byte for byte, under two names."""
    by_uid: dict[str, list[Path]] = defaultdict(list)
    for path, uid in dict.fromkeys((frame.path, frame.uid) for frame in frames):
        by_uid[uid].append(path)
    copies: set[Path] = set()
    for uid, paths in by_uid.items():
        if uid and len(paths) > 1:
            contents: set[bytes] = set()
            for path in paths:
                content = path.read_bytes()
                copies |= {path} if content in contents else set()
                contents.add(content)
    if copies:
        notes.append("Some DICOM files are stored twice and count once")
    return [frame for frame in frames if frame.path not in copies]


def _one_plane(frames: list[Frame], notes: list[str]) -> list[Frame]:
    """Return the frames without a few strays of another size or orientation, by depth."""
    planes = _planes(frames)
    if len(planes[0]) < len(frames) * (1 - STRAY):
        turned = not all(np.allclose(same[0].direction, planes[0][0].direction) for same in planes)
        raise Refused(f"mixes slices of different {'orientation' if turned else 'size'}")
    if len(planes) > 1:
        notes.append("A few slices of the series have another size or orientation and are left out")
    return sorted(planes[0], key=lambda frame: (frame.depth_mm, *_number(frame)))


def _number(frame: Frame) -> tuple[int, Path, int]:
    return frame.instance, frame.path, frame.frame


def _by_depth(frames: list[Frame]) -> list[list[Frame]]:
    """Return the frames at each depth in the order of their volumes; refuse a series with gaps."""
    step = min(frame.spacing[2] for frame in frames)
    depths: list[list[Frame]] = []
    for frame in frames:
        if depths and frame.depth_mm - depths[-1][0].depth_mm < 0.01 * max(step, 0.01):
            depths[-1].append(frame)
        else:
            depths.append([frame])
    for same in depths:  # equal depths may differ by rounding: the numbers order the volumes
        same.sort(key=_number)
    if len({len(same) for same in depths}) > 1:
        raise Refused("is incomplete: some of its slices occur more often than others")
    gaps = np.diff([same[0].depth_mm for same in depths])
    if len(gaps) and gaps.max() > (1 + JITTER) * np.median(gaps) + 0.01:
        raise Refused(f"lacks slices: they are {gaps.min():.3g} to {gaps.max():.3g} mm apart")
    if len(gaps) and gaps.min() < (1 - JITTER) * np.median(gaps) - 0.01:
        raise Refused(f"is uneven: its slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart")
    return depths


def _is_sorted(depths: list[float]) -> bool:
    steps = np.diff(depths)
    return bool((steps >= -1e-3).all() or (steps <= 1e-3).all())


def _affine(frames: list[Frame]) -> NDArray[np.float64]:
    """Return the affine (4, 4) in millimetres of RAS."""
    affine = np.eye(4)
    affine[:3, :3] = frames[0].direction * frames[0].spacing
    if len(frames) > 1:
        affine[:3, 2] = (frames[-1].origin - frames[0].origin) / (len(frames) - 1)
    affine[:3, 3] = frames[0].origin
    affine[:2] *= -1  # the axes of DICOM run to the left and to the back
    return affine


def _read_voxels(frames: list[Frame]) -> NDArray[Any]:
    """Return the voxels (I, J, K) of frames, scaled; each file is decoded once."""
    scalings = {frame.scaling for frame in frames}
    blocks: dict[Path, NDArray[Any]] = {}
    slices = []
    for frame in frames:
        if frame.path not in blocks:
            blocks[frame.path] = read_voxels(frame.path)  # (I, J, frames)
        block = blocks[frame.path]
        if block.shape[:2] != frame.size[:2] or block.shape[2] <= frame.frame:
            raise Refused("is damaged: one of its files holds other slices than its header claims")
        slices.append(_scaled(block[:, :, frame.frame], *frame.scaling, alone=len(scalings) == 1))
        if block.shape[2] == 1:
            del blocks[frame.path]
    return np.stack(slices, axis=2)


def _scaled(stored: NDArray[Any], slope: float, intercept: float, *, alone: bool) -> NDArray[Any]:
    """Return intensities; whole numbers where slope and intercept are."""
    if (slope, intercept) == (1.0, 0.0) and alone:
        return stored
    whole = slope.is_integer() and intercept.is_integer() and stored.dtype.itemsize < 4
    if whole and alone and abs(slope) <= 2**14 and abs(intercept) <= 2**30:  # fits 32 bits
        return stored * np.int32(slope) + np.int32(intercept)
    return (stored * slope + intercept).astype(np.float32)
