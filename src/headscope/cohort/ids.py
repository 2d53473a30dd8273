"""What a layout recognised, and the ids that stand in names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd

ID: Final = "id of the participant"
SUBJECT: Final = re.compile(r"(sub-[A-Za-z0-9]+|OAS[1-4]_?\d{4,5}|\d{3}_S_\d{4,5})")
SESSION: Final = re.compile(
    r"(?:^|[_/-])(ses-[A-Za-z0-9]+|MR\d+|d\d{4}|visit-?[A-Za-z0-9]+)(?=[_/.-]|$)"
)

READY_SLICE: Final = re.compile(r"_(?:(axl|cor|sag)\.|(axial|coronal|sagittal)_slice-)")
PLANE_MARKS: Final = {"axl": "axial", "cor": "coronal", "sag": "sagittal"}


@dataclass(frozen=True)
class Found:
    """What a layout recognised: a row a scan, with every column its table offers."""

    layout: str
    scans: "pd.DataFrame"
    label: str | None = None  # the column of classes, where the layout knows it
    classes: Mapping[str, Sequence[str]] | None = None
    notes: list[str] = field(default_factory=list)


def subject_of(name: str, *, nested: bool) -> tuple[str, str]:
    """Return the subject that a path names, and where in it that was found."""
    match = SUBJECT.search(name)
    if match is not None:
        return match[0], "the ids in the names"
    if nested and "/" in name:
        return name.split("/", 1)[0], "the folders inside the classes"
    stem = re.sub(
        r"\.(nii|hdr|mgh|mgz|dcm|ima)(\.gz)?$", "", name.rsplit("/", 1)[-1], flags=re.IGNORECASE
    )
    session = SESSION.search(stem)
    if session is not None and session.start() > 0:
        return stem[: session.start()], "the names up to the session"
    return stem, "the whole file name"


def session_of(name: str) -> str:
    """Return the session that a path names, or "1"."""
    match = SESSION.search(name)
    return match[1] if match is not None else "1"


def plane_named(name: str) -> str | None:
    """Return the plane in the name of a ready slice, None without one.

    OASIS-2 calls them …_cor.nii.gz, and `headscope slice` …_coronal_slice-012.png.
    """
    match = READY_SLICE.search(name)
    return match and (match[2] or PLANE_MARKS[match[1]])
