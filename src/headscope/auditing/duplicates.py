"""Which scans show one head twice: identical, copied with a change, or scanned on another day.

Heads of different subjects resemble each other, so the search narrows in three steps, each by the
numbers of docs/audit.md:

    correlation  of slices at 24×24, without brightness and contrast; subjects reach 0.96
    deviation    the same less the cohort's mean slice at that depth: what is particular to a head
    detail       of up to three slices at 96×96, fine structure alone, laid upon each other within
                 2° and 3 pixels, without what many pictures share (`detail`): subjects stay below
                 0.5, visits of one subject are at about 0.85, a copy that was turned, compressed
                 or brightened above 0.9

Correlation and deviation only choose what is worth the closer look; detail decides.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from headscope.audit_record import COPY_DETAIL, SAME_HEAD, SIDE
from headscope.auditing.detail import Detail, shrink, unit_rows
from headscope.console import track

LEAST: Final = (0.75, 0.30)  # correlation and deviation of middle slices worth a closer look
COPY: Final = 0.98  # least correlation of a copy
SHIFTS: Final = (-2, -1, 0, 1, 2)  # slices by which the depth of a copy may be off
LEAST_SIDE: Final = 48  # pixels; at 32, detail of different subjects of OASIS-2 reaches 0.61
FEWEST: Final = 8  # scans from which on their mean stands for a common head
MOST_PAIRS: Final = 20_000  # that are looked at closely, at a few ms each; or one per scan
MOST_LISTED: Final = 1000  # pairs that are listed; all are counted
MOST_VISITS: Final = 300  # likewise of one subject's
MOST_SLICES: Final = 60_000  # held shrunk, at 4.6 kB each
BLOCK: Final = 1024

Floats = NDArray[np.float32]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Match:
    """Two scans, by number, that show one head: kind is "identical", "copy" or "alike"."""

    first: int
    second: int
    kind: str
    correlation: float
    deviation: float
    detail: float


@dataclass(frozen=True)
class Matches:
    """The matches, best first.

    pairs are of different subjects, or identical (of these the first 1,000; groups has all: the
    scans of each group that are equal in every pixel). visits are of one subject, up to 300 of
    them, recognised or not (kind ""): how well heads are recognised here. shared are pairs of scans
    that are not identical and have identical slices. cut says that there was more than could be
    compared. picture (N,) is the same number for slices of equal pixels, negative for those of one
    grey value, which mean nothing. compared is whether heads were compared: slices of fewer than 48
    pixels are too small for it, and equal ones alone are looked for.
    """

    pairs: list[Match]
    visits: list[Match]
    shared: list[tuple[int, int]]
    cut: bool
    groups: list[tuple[int, ...]]
    picture: Index = field(repr=False, compare=False)
    compared: bool


@dataclass(frozen=True)
class Heads:
    """The slices of S scans, shrunk: unit (M, 576), and centred at their depth.

    Slices of scan s are rows starts[s] to starts[s] + counts[s]; centred is None for few scans.
    """

    unit: Floats
    centred: Floats | None
    starts: Index
    counts: Index
    plane: Index  # (S,) of the middle slice

    @property
    def middles(self) -> Index:
        """The row of each scan's middle slice (S,)."""
        return self.starts + self.counts // 2


def find_matches(
    pixels: NDArray[np.uint8],
    scan: Index,
    subject: ArrayLike,
    *,
    plane: Index | None = None,
    cohort: ArrayLike | None = None,
    correlation: float = COPY,
) -> Matches:
    """Compare every scan with every other.

    pixels (N, H, W) are the slices, scan (N,) the number of the scan that each shows, from 0;
    slices of a scan stand together, in order. subject (S,) numbers the subjects of the scans; plane
    (N,) numbers the planes, where there are several. cohort (S,) numbers the cohorts, where only
    scans of different ones are looked at closely. `correlation` is the least of a copy. Memory is
    bounded whatever the number of scans.
    """
    starts = np.flatnonzero(np.diff(scan, prepend=-1))
    counts = np.diff([*starts, len(scan)])
    picture = number_pictures(pixels)
    groups, shared = identical_scans(picture, starts, counts)
    identical = (two for members in groups for two in combinations(members, 2))
    pairs = [Match(a, b, "identical", 1.0, 1.0, 1.0) for a, b in islice(identical, MOST_LISTED)]
    if min(pixels.shape[1:]) < LEAST_SIDE:
        return Matches(pairs, [], shared, cut=False, groups=groups, picture=picture, compared=False)
    heads = describe_heads(pixels, starts, counts, np.zeros_like(scan) if plane is None else plane)
    subjects = np.unique(np.asarray(subject), return_inverse=True)[1]
    group = _group_numbers(groups, len(starts))
    apart = subjects if cohort is None else np.asarray(cohort)
    likely, cut = _likely(heads, apart, group)
    look = Detail(pixels, starts, counts, subjects, heads.plane)
    shown = likely if len(likely) < 100 else track(likely, "Looking closer", len(likely))
    close = [compare_depths(heads, a, b) for a, b in shown]
    graded = [_graded(look, agreement, correlation) for agreement in close]
    some = _some_visits(heads, subjects) if cohort is None else []
    visits = [_graded(look, agreement, correlation) for agreement in some]
    pairs += sorted((match for match in graded if match.kind), key=lambda match: -match.detail)
    return Matches(pairs, visits, shared, cut, groups, picture, compared=True)


def number_scans(table: pd.DataFrame) -> Index:
    """Number the scans (N,) from 0; a file that is listed twice counts as two equal ones."""
    return (table != table.shift()).any(axis=1).cumsum().to_numpy(np.intp) - 1


def number_pictures(pixels: NDArray[np.uint8]) -> Index:
    """Return a number (N,) for each slice, the same for slices of equal pixels; by hash.

    Slices of one grey value get negative ones.
    """
    numbers: dict[bytes, int] = {}
    picture = np.empty(len(pixels), dtype=np.intp)
    for row, pixel in enumerate(pixels):
        digest = hashlib.blake2b(pixel.tobytes(), digest_size=16).digest()
        number = numbers.setdefault(digest, len(numbers) + 1)
        picture[row] = number if pixel.min() < pixel.max() else -number
    return picture


def identical_scans(
    picture: Index, starts: Index, counts: Index
) -> tuple[list[tuple[int, ...]], list[tuple[int, int]]]:
    """Return groups of scans of equal pixels, and pairs that share single slices.

    Of a group of equal scans the first alone is held against others for single slices, and each
    scan against the first that holds a slice.
    """
    whole: dict[tuple[int, ...], list[int]] = {}
    single: dict[int, int] = {}
    shared: set[tuple[int, int]] = set()
    for scan, (start, count) in enumerate(zip(starts, counts, strict=True)):
        numbers = tuple(picture[start : start + count].tolist())
        members = whole.setdefault(numbers, [])
        members.append(scan)
        if len(members) > 1:
            continue
        owners = {single.setdefault(number, scan) for number in numbers if number > 0}
        shared |= {(owner, scan) for owner in owners if owner != scan}
    return [tuple(members) for members in whole.values() if len(members) > 1], sorted(shared)


def _group_numbers(groups: Sequence[tuple[int, ...]], scans: int) -> Index:
    """Return the group (S,) of each scan; one that is equal to no other is alone in its group."""
    group = np.arange(scans)
    for members in groups:
        group[list(members)] = members[0]
    return group


def describe_heads(pixels: NDArray[np.uint8], starts: Index, counts: Index, plane: Index) -> Heads:
    """Shrink the slices; of many scans only the middle ones, so that all fit into memory."""
    taken = np.minimum(counts, max(1, MOST_SLICES // len(starts)))
    first = np.cumsum(taken) - taken
    rank = np.arange(taken.sum()) - np.repeat(first, taken)
    rows = np.repeat(starts + counts // 2 - taken // 2, taken) + rank  # middle stays middle
    unit = np.empty((len(rows), SIDE * SIDE), dtype=np.float32)
    blocks = range(0, len(rows), BLOCK)
    for start in _shown(blocks, "Shrinking slices"):
        small = shrink(pixels[rows[start : start + BLOCK]], SIDE)  # (n, 24, 24)
        unit[start : start + BLOCK] = unit_rows(small.reshape(len(small), -1))
    centred = np.empty_like(unit) if len(starts) >= FEWEST else None
    if centred is not None:
        depths = rank + plane[rows] * (1 + rank.max())
        for depth in np.unique(depths):
            here = depths == depth
            centred[here] = unit_rows(unit[here] - unit[here].mean(axis=0))
    return Heads(unit, centred, first, taken, plane[starts + counts // 2])


def _likely(heads: Heads, subjects: Index, group: Index) -> tuple[list[tuple[int, int]], bool]:
    """Return pairs (a, b), a < b, of different subjects whose middle slices may be of one head.

    Scans of one group (S,) are equal, and no pairs here. Of more than 20,000 pairs those of the
    highest deviation remain for each scan, so that many copies of one scan hide no other's; the
    second value tells whether. Memory follows the number of scans, not that of their pairs.
    """
    unit = heads.unit[heads.middles]  # (S, 576)
    centred = unit if heads.centred is None else heads.centred[heads.middles]
    likely, best = np.empty((0, 2), dtype=np.intp), np.empty(0, dtype=np.float32)
    most = max(MOST_PAIRS, len(unit))
    cut = False
    blocks = range(0, len(unit), BLOCK)
    for start in _shown(blocks, "Comparing scans"):
        for other in range(start, len(unit), BLOCK):
            rows, columns = slice(start, start + BLOCK), slice(other, other + BLOCK)
            deviation = centred[rows] @ centred[columns].T  # (BLOCK, BLOCK)
            near = (deviation > LEAST[1]) & (unit[rows] @ unit[columns].T > LEAST[0])
            near &= subjects[rows, None] != subjects[columns]
            near &= group[rows, None] != group[columns]
            pairs = np.argwhere(near) + np.array([start, other])
            later = pairs[:, 0] < pairs[:, 1]
            likely = np.concatenate([likely, pairs[later]])
            best = np.concatenate([best, deviation[near][later]])
            if len(likely) > most:
                highest = _highest_of_each(likely, best, most // len(unit))
                likely, best, cut = likely[highest], best[highest], True
    return [(int(a), int(b)) for a, b in likely], cut


def _highest_of_each(pairs: Index, best: Floats, most: int) -> Index:
    """Return which pairs (n, 2) are among the `most` highest of either of their scans.

    A pair that is not cannot be later, so pairs may be left out as they come.
    """
    scan, value = pairs.T.ravel(), np.tile(best, 2)  # (2n,)
    order = np.lexsort((-value, scan))
    first = np.flatnonzero(np.diff(scan[order], prepend=-1))
    rank = np.empty(len(scan), dtype=np.intp)
    rank[order] = np.arange(len(scan)) - np.repeat(first, np.diff([*first, len(scan)]))
    return np.flatnonzero((rank < most).reshape(2, -1).any(axis=0))


Agreement = tuple[int, int, float, float, int]  # two scans, correlation, deviation, depth


def compare_depths(heads: Heads, a: int, b: int) -> Agreement:
    """Return mean correlation and deviation over the slices of two scans, at the best depth."""
    counts = heads.counts[a], heads.counts[b]
    best = (-2.0, -2.0, 0)
    for shift in SHIFTS:
        low, high = max(0, -shift), min(counts[0], counts[1] - shift)
        if abs(shift) >= min(counts) or high <= low:
            continue
        first = slice(heads.starts[a] + low, heads.starts[a] + high)
        second = slice(heads.starts[b] + low + shift, heads.starts[b] + high + shift)
        value, deviation = (
            1.0 if rows is None else np.einsum("nd,nd->n", rows[first], rows[second]).mean()
            for rows in (heads.unit, heads.centred)
        )
        best = max(best, (float(value), float(deviation), shift))
    return a, b, *best


def _some_visits(heads: Heads, subjects: Index) -> list[Agreement]:
    """Return how pairs of neighbouring scans of one subject agree, up to 300 spread over all."""
    order = np.lexsort((heads.plane, subjects))
    pairs = [
        (int(a), int(b))
        for a, b in pairwise(order)
        if subjects[a] == subjects[b] and heads.plane[a] == heads.plane[b]
    ]
    step = -(-len(pairs) // MOST_VISITS) or 1
    return [compare_depths(heads, a, b) for a, b in pairs[::step]]


def _shown(blocks: range, description: str) -> Iterable[int]:
    """Show the progress where there are several blocks."""
    return blocks if len(blocks) < 2 else track(blocks, description, len(blocks))


def _graded(look: Detail, agreement: Agreement, correlation: float) -> Match:
    a, b, value, deviation, shift = agreement
    detail = look(a, b, shift)
    kind = ""
    if detail >= COPY_DETAIL and value >= correlation:
        kind = "copy"
    elif detail >= SAME_HEAD:
        kind = "alike"
    return Match(a, b, kind, value, deviation, detail)
