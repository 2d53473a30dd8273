"""Subjects inferred from the pixels of stored slices, where names hold no ids (`linking`)."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtri

from headscope.audit_record import SAME_HEAD
from headscope.auditing.duplicates import number_scans
from headscope.auditing.linking import Links, find_links, group_scans
from headscope.cohort.joining.listed import INFERRED
from headscope.cohort.tables import counted
from headscope.errors import InputError
from headscope.slicing.inferred import PARTITIONS, read_inferred, write_inferred
from headscope.slicing.store import SliceSet
from headscope.threads import one_blas_thread

FORMAT: Final = 2  # of what is inferred: another one is made again
THRESHOLDS: Final = {"strict": SAME_HEAD, "loose": 0.48}  # least detail, where pairs are few
FEWEST_PAIRS: Final = 500  # of which a mode is found
FALSE_PAIRS: Final = {"strict": 0.05, "loose": 0.25}  # expected above the threshold by chance
LEAST: Final = 0.40  # below it no two scans are one head, whatever the others are like
BIN: Final = 0.0025  # of detail, in which the mode is sought
CROWD: Final = 0.25  # share of all scans: a larger group is more likely a chain than one subject
FEWEST: Final = 12  # scans from which on such a share says something


@one_blas_thread
def infer_subjects(slices: SliceSet) -> pd.DataFrame:
    """Return the inferred subjects: one row per scan, in the order of the slices.

    The ids and labels of the slices are not looked at. Columns: path (the scan's name), label,
    subject_id (that of `loose`, to be corrected by hand), strict and loose (the inferred subject by
    either threshold), partner (of those in the same loose subject, the scan with which it agrees
    best; empty if it is alone) and detail (how well they agree). `attrs` has both thresholds
    (`calibrate`).
    """
    table = slices.table
    scan = number_scans(table[["scan", "subject_id", "session_id"]])
    planes = table.groupby(scan)["plane"].agg(lambda names: " and ".join(sorted(set(names))))
    if (planes != planes.iloc[0]).any():
        raise InputError(
            f"Subjects cannot be inferred across planes, and scans here are {planes.iloc[0]} or "
            f"{planes[planes != planes.iloc[0]].iloc[0]}: --plane takes one."
        )
    links = find_links(slices.pixels, scan, np.zeros(len(scan), dtype=np.intp))
    least = calibrate(links)
    groups = {name: group_scans(links, value) for name, value in least.items()}
    first = np.flatnonzero(np.diff(scan, prepend=-1))
    paths = table["scan"].to_numpy(str)[first]
    ids = {name: _name_groups(group, paths, name) for name, group in groups.items()}
    partner, detail = _partners(links, groups["loose"])
    subjects = pd.DataFrame(
        {
            "path": paths,
            "label": table["label"].to_numpy(str)[first],
            "subject_id": ids["loose"],
            **ids,
            "partner": np.where(partner < 0, "", paths[partner]),
            "detail": np.round(detail, 3),
        }
    )
    subjects.attrs.update(least)
    return subjects


def calibrate(links: Links) -> dict[str, float]:
    """Return the strict and the loose threshold of detail by what pairs of this cohort are like.

    Of all pairs compared, those of different heads make the lowest peak of the distribution; what
    is below the peak is theirs alone, and says how far they spread. By a normal of that centre and
    spread, 0.05 (strict) and 0.25 (loose) of all pairs would reach the threshold. It stays
    between 0.40 and the detail from which the audit speaks of one head, 0.60; of fewer than 500
    pairs it is that of `THRESHOLDS`. Source: docs/inferred.md.
    """
    detail = links.detail[links.detail < 1]  # equal pictures are no sample of either kind
    if len(detail) < FEWEST_PAIRS:
        return dict(THRESHOLDS)
    quarter, half, most = np.quantile(detail, (0.25, 0.5, 0.75))
    width = 1.8 * min(detail.std(), (most - quarter) / 1.34) * len(detail) ** -0.2  # 2 × Silverman
    edges = np.arange(-1, 1 + BIN, BIN)
    heights = gaussian_filter1d(np.histogram(detail, edges)[0].astype(float), width / BIN)
    rising = np.diff(heights) > 0
    peaks = np.flatnonzero(rising[:-1] & ~rising[1:]) + 1
    peaks = peaks[heights[peaks] >= heights.max() / 2]
    centre = float(edges[peaks[0]] + BIN / 2) if len(peaks) else float(half)
    spread = float(np.median(centre - detail[detail < centre]) / ndtri(0.75))
    return {
        name: float(np.clip(centre - ndtri(share / len(detail)) * spread, LEAST, SAME_HEAD))
        for name, share in FALSE_PAIRS.items()
    }


def store_inferred(experiment: Path, slices: SliceSet) -> pd.DataFrame:
    """Return the inferred subjects of an experiment's slices, which `subjects/` keeps."""
    facts: dict[str, Any] = {"format": FORMAT, "slices_sha256": slices.sha256}
    subjects = read_inferred(experiment, facts)
    if subjects is None:
        subjects = infer_subjects(slices)
        facts |= {str(name): value for name, value in subjects.attrs.items()}
        write_inferred(experiment, subjects, facts)
    return subjects


def note_inferred(subjects: pd.DataFrame) -> list[str]:
    """Say how many subjects were inferred, and whether a group is too large to be one."""
    strict, loose = (subjects[name].nunique() for name in PARTITIONS)
    least = THRESHOLDS | subjects.attrs
    notes = [
        f"Subjects are inferred from pixels, not known: {counted(len(subjects), 'scan')} or "
        f"pictures show {strict} by the strict threshold (detail {least['strict']:.2f}) and "
        f"{loose} by the loose one ({least['loose']:.2f})."
    ]
    if least["loose"] >= SAME_HEAD:
        notes.append(
            "Both thresholds are at their upper bound: different heads agree here almost as one "
            "does, so that several may be one inferred subject. Slices larger than their pictures "
            "are so: a --size of the pictures or less holds heads apart better."
        )
    alone = int((subjects["strict"].value_counts() == 1).sum())
    if alone:
        notes.append(
            f"{alone} of them have no partner by the strict threshold: visits years apart, or "
            "neighbouring slices more than about 2 mm apart, may not be recognised."
        )
    largest = int(subjects["loose"].value_counts().iloc[0])
    if len(subjects) >= FEWEST and largest > CROWD * len(subjects):
        notes.append(
            f"The largest inferred subject holds {largest} of them, more than a quarter: pictures "
            "that resemble each other for another reason may have been linked."
        )
    return notes


def _name_groups(group: NDArray[np.intp], paths: NDArray[np.str_], name: str) -> list[str]:
    """Name the groups (S,) in the order of their first paths: "inferred-strict-001", …."""
    order = pd.factorize(group[np.argsort(paths, kind="stable")])[1]  # groups as they come
    number = np.empty(len(order), dtype=np.intp)
    number[order] = np.arange(1, len(order) + 1)
    width = max(3, len(str(len(order))))
    return [f"{INFERRED}-{name}-{number[g]:0{width}}" for g in group]


def _partners(links: Links, group: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return with which scan of its group each (S,) agrees best, -1 if alone, and how well."""
    partner = np.full(links.scans, -1)
    detail = np.full(links.scans, np.nan)
    inside = group[links.pairs[:, 0]] == group[links.pairs[:, 1]]
    pairs, values = links.pairs[inside], links.detail[inside]
    for row in np.argsort(values, kind="stable"):  # the best comes last
        for scan, other in (pairs[row], pairs[row][::-1]):
            partner[scan], detail[scan] = other, values[row]
    return partner, detail
