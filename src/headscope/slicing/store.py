"""The slice store: one uint8 memory map, one table, and settings that tie them together.

    slices.npy    uint8 (N, H, W), a plain NumPy file
    labels.npy    int64 (N,), index into class_names of each slice
    slices.tsv    one row per slice: scan, subject_id, session_id, label, plane, slice_index
    slices.json   every setting, the fingerprint of the scans, class_names, sha256
    manifest.json the SHA-256 of each file

Opening reads the settings and compares all but the pixels with their hashes; a store of a million
slices opens at once: pixels stay on disk, and the table is parsed when first needed. Whoever
computes from pixels calls `check_pixels` first, which reads them all once.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from headscope.errors import InputError
from headscope.files import read_table, sha256
from headscope.manifest import DAMAGE, NAME, check_file, folder_problems, reason_of

CHUNK: Final = 2**20
CHECKED: Final = ("slices.tsv", "labels.npy")  # small enough to be hashed at every opening


@dataclass(frozen=True)
class SliceSet:
    """An open store: pixels (N, H, W) uint8, memory-mapped, and one row for each slice."""

    path: Path
    pixels: NDArray[np.uint8]
    class_names: list[str]
    settings: dict[str, Any]
    sha256: str

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per slice, in the order of the pixels; read when first needed."""
        try:
            return read_table(self.path / "slices.tsv")
        except DAMAGE as error:
            raise _damaged(self.path, error) from error

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Index into `class_names` of each slice (N,)."""
        try:
            return np.load(self.path / "labels.npy", allow_pickle=False)
        except FileNotFoundError:  # a store of an earlier version
            return (
                pd.Index(self.class_names)
                .get_indexer(pd.Index(self.table["label"]))
                .astype(np.int64)
            )

    @property
    def notes(self) -> list[str]:
        """Sentences on where the slices come from and what was left out."""
        return list(self.settings["notes"])

    def check_pixels(self) -> None:
        """Refuse pixels that have changed since they were stored (InputError)."""
        path = self.path / "slices.npy"
        if (self.path / NAME).is_file():
            check_file(path)
        elif set(CHECKED) <= self.settings.get("files", {}).keys():  # of an earlier version
            hashes = (pixels_hash(path), *(self.settings["files"][name] for name in CHECKED))
            if hashlib.sha256("".join(hashes).encode()).hexdigest() != self.sha256:
                raise InputError(
                    f"{path} has changed since it was written: nothing is read from it."
                )

    def batch(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """Return the pixels (B, H, W) of some rows, read from disk rather than mapped.

        A map of a store larger than memory would grow with every page that was ever read.
        """
        pixels, numbers = self.pixels, np.asarray(rows, dtype=np.int64).tolist()
        out = np.empty((len(numbers), *pixels.shape[1:]), dtype=np.uint8)  # (B, H, W)
        size = out[:1].nbytes
        start = (self.path / "slices.npy").stat().st_size - len(pixels) * size
        file = os.open(self.path / "slices.npy", os.O_RDONLY)
        try:
            for picture, row in zip(out, numbers, strict=True):
                if not 0 <= row < len(pixels):
                    raise IndexError(f"row {row} of {len(pixels)} slices")
                os.preadv(file, [picture], start + row * size)
        finally:
            os.close(file)
        return out


def open_slices(out: Path) -> SliceSet:
    """Open a store, read as needed; InputError where it is unfinished or its files do not fit."""
    if not (out / "slices.json").is_file():
        raise InputError(f"{out} holds no slices: it has no finished slices.json.")
    try:
        settings = json.loads((out / "slices.json").read_text(encoding="utf-8"))
        rows = _count_lines(out / "slices.tsv") - 1
        pixels = np.load(out / "slices.npy", mmap_mode="r", allow_pickle=False)
        slices = SliceSet(out, pixels, list(settings["class_names"]), settings, settings["sha256"])
        _ = slices.notes
    except DAMAGE as error:
        raise _damaged(out, error) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise InputError(f"{out} is damaged: slices.npy holds no pictures of uint8.")
    if len(pixels) != rows:
        raise InputError(
            f"{out} is damaged: {len(pixels)} slices in slices.npy, {rows} in slices.tsv."
        )
    for name, digest in dict(settings.get("files", {})).items():
        if name in CHECKED and (out / name).is_file() and sha256(out / name) != digest:
            raise InputError(f"{out} is damaged: {name} has changed since the slices were taken.")
    problems = folder_problems(out, quick=("slices.npy",)).items()
    if problems:
        text = "; ".join(f"{name} {problem}" for name, problem in problems)
        raise InputError(f"{out} is damaged: {text}.")
    return slices


def pixels_hash(path: Path) -> str:
    """Return the SHA-256 of the pixels alone, without the header of their file."""
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(path.stat().st_size - pixels.nbytes)
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK), b""))


def _damaged(out: Path, error: Exception) -> InputError:
    return InputError(f"{out} is damaged: {reason_of(error)}.")
