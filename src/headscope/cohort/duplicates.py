"""Which scans show one head twice: identical, copied with a change, or scanned on another day.

Heads of different people resemble each other, so the search narrows in three steps, each by the
numbers of docs/audit.md:

    correlation  of slices at 24×24, brightness and contrast taken out; people reach 0.96
    deviation    the same less the cohort's mean slice at that depth: what is particular to a head
    detail       of the middle slices at 96×96, fine structure alone, laid upon each other within
                 2° and 3 pixels: people stay below 0.6, visits of one person lie between 0.6 and
                 0.95, a copy that was turned, compressed or brightened above 0.9
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from headscope.console import track

SIDE: Final = 24
LEAST: Final = (0.93, 0.50)  # correlation and deviation from which on detail is looked at
LOOSER: Final = 0.10  # by how much less the middle slices alone may agree
COPY: Final = 0.98  # least correlation of a copy
COPY_DETAIL: Final = 0.93
SAME_HEAD: Final = 0.65  # least detail of two scans of one person
SHIFTS: Final = (-2, -1, 0, 1, 2)  # slices by which the depth of a copy may be off
FINE_SIDE: Final = 96
FINE_WIDTH: Final = 2.0  # pixels; structure smoother than this is taken away
TURNS: Final = np.arange(-2, 2.1, 0.5)  # degrees
REACH: Final = 3  # pixels
FEWEST: Final = 8  # scans from which on their mean stands for a common head
MOST_PAIRS: Final = 100_000
MOST_DETAILS: Final = 20_000  # pairs that are looked at in detail, at about 1 ms each
MOST_VISITS: Final = 300  # likewise of one person's
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
    """What was found, best first.

    pairs are of different people, or identical; visits are of one person, up to 300 of them looked
    at, found or not (kind ""): how well heads are recognised here. shared are pairs of scans that
    are not identical and have identical slices. cut says that there was more than could be
    compared.
    """

    pairs: list[Match]
    visits: list[Match]
    shared: list[tuple[int, int]]
    cut: bool


@dataclass(frozen=True)
class _Heads:
    """The slices of S scans, shrunk: unit (M, 576), and less the mean at their depth, own.

    Slices of scan s are rows starts[s] to starts[s] + counts[s]; own is None for few scans.
    """

    unit: Floats
    own: Floats | None
    starts: Index
    counts: Index
    plane: Index  # (S,) of the middle slice

    @property
    def middles(self) -> Index:
        return self.starts + self.counts // 2


def find_matches(
    pixels: NDArray[np.uint8],
    scan: Index,
    person: Sequence[str],
    *,
    plane: Index | None = None,
    correlation: float = COPY,
) -> Matches:
    """Compare every scan with every other.

    pixels (N, H, W) are the slices, scan (N,) the number of the scan that each shows, from 0;
    slices of a scan stand together, in order. person (S,) is whose the scans are said to be; plane
    (N,) numbers the planes, where there are several. `correlation` is the least of a copy. Memory
    is bounded whatever the number of scans.
    """
    starts = np.flatnonzero(np.diff(scan, prepend=-1))
    counts = np.diff([*starts, len(scan)])
    identical, shared = _identical(pixels, starts, counts)
    heads = _describe(pixels, starts, counts, np.zeros_like(scan) if plane is None else plane)
    likely, cut = _likely(heads, min(correlation, LEAST[0]))
    known = set(identical)
    found = [_agreement(heads, a, b) for a, b in likely if (a, b) not in known]
    found = [match for match in found if match[3] >= LEAST[1]]
    found.sort(key=lambda match: -match[3])
    people = np.asarray(person)
    across = [match for match in found if people[match[0]] != people[match[1]]]
    visits = _some_visits(heads, people)
    look = _Detail(pixels, starts + counts // 2)
    graded = [_graded(look, match, correlation) for match in _tracked(across[:MOST_DETAILS])]
    pairs = [Match(a, b, "identical", 1.0, 1.0, 1.0) for a, b in identical]
    pairs += sorted((match for match in graded if match.kind), key=lambda match: -match.detail)
    return Matches(
        pairs,
        [_graded(look, match, correlation) for match in visits if match[:2] not in known],
        [pair for pair in shared if pair not in known],
        cut or len(across) > MOST_DETAILS,
    )


def shrink(pixels: NDArray[np.uint8], side: int = SIDE) -> Floats:
    """Return slices (n, H, W) averaged down to (n, side, side)."""
    small = np.empty((len(pixels), side, side), dtype=np.float32)
    for n, picture in enumerate(pixels):
        resized = Image.fromarray(picture).convert("F").resize((side, side), Image.Resampling.BOX)
        small[n] = np.asarray(resized)
    return small


def _identical(
    pixels: NDArray[np.uint8], starts: Index, counts: Index
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pairs of scans of equal pixels, and pairs that share single slices; by hash.

    Of a group of equal scans each is paired with the first, so that a group of n gives n - 1.
    """
    whole: dict[bytes, int] = {}
    single: dict[bytes, int] = {}
    identical: list[tuple[int, int]] = []
    shared: set[tuple[int, int]] = set()
    for scan, (start, count) in enumerate(zip(starts, counts, strict=True)):
        block = np.asarray(pixels[start : start + count])
        first = whole.setdefault(_digest(block), scan)
        if first != scan:
            identical.append((first, scan))
            continue
        for picture in block:
            if picture.min() < picture.max():
                owner = single.setdefault(_digest(picture), scan)
                if owner != scan:
                    shared.add((owner, scan))
    return identical, sorted(shared)


def _digest(pixels: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def _describe(pixels: NDArray[np.uint8], starts: Index, counts: Index, plane: Index) -> _Heads:
    """Shrink the slices; of many scans only the middle ones, so that all fit into memory."""
    kept = np.minimum(counts, max(1, MOST_SLICES // len(starts)))
    first = np.cumsum(kept) - kept
    rank = np.arange(kept.sum()) - np.repeat(first, kept)
    rows = np.repeat(starts + counts // 2 - kept // 2, kept) + rank  # middle stays middle
    unit = np.empty((len(rows), SIDE * SIDE), dtype=np.float32)
    blocks = range(0, len(rows), BLOCK)
    for start in track(blocks, "Shrinking slices", len(blocks)):
        small = shrink(pixels[rows[start : start + BLOCK]])  # (n, 24, 24)
        unit[start : start + BLOCK] = _unit(small.reshape(len(small), -1))
    own = np.empty_like(unit) if len(starts) >= FEWEST else None
    if own is not None:
        depths = rank + plane[rows] * (1 + rank.max())
        for depth in np.unique(depths):
            here = depths == depth
            own[here] = _unit(unit[here] - unit[here].mean(axis=0))
    return _Heads(unit, own, first, kept, plane[starts + counts // 2])


def _unit(rows: Floats) -> Floats:
    """Scale rows to mean 0 and length 1; a row without any contrast becomes 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-6)


def _likely(heads: _Heads, least: float) -> tuple[list[tuple[int, int]], bool]:
    """Return pairs (a, b), a < b, whose middle slices do not rule them out; by blocks."""
    unit = heads.unit[heads.middles]  # (S, 576)
    own = None if heads.own is None else heads.own[heads.middles]
    found: list[tuple[int, int]] = []
    blocks = range(0, len(unit), BLOCK)
    for start in track(blocks, "Comparing scans", len(blocks)):
        for other in range(start, len(unit), BLOCK):
            rows, columns = slice(start, start + BLOCK), slice(other, other + BLOCK)
            near = unit[rows] @ unit[columns].T > least - LOOSER  # (BLOCK, BLOCK)
            if own is not None and near.any():
                near &= own[rows] @ own[columns].T > LEAST[1] - LOOSER
            first, second = np.nonzero(near)
            later = first + start < second + other
            found += zip(
                (first[later] + start).tolist(), (second[later] + other).tolist(), strict=True
            )
            if len(found) > MOST_PAIRS:
                return found[:MOST_PAIRS], True
    return found, False


Agreement = tuple[int, int, float, float]  # two scans, their correlation and deviation


def _agreement(heads: _Heads, a: int, b: int) -> Agreement:
    """Return mean correlation and deviation over the slices of two scans, at the best depth."""
    counts = heads.counts[a], heads.counts[b]
    best = (-1.0, -1.0)
    for shift in SHIFTS:
        low, high = max(0, -shift), min(counts[0], counts[1] - shift)
        if abs(shift) >= min(counts) or high <= low:
            continue
        first = slice(heads.starts[a] + low, heads.starts[a] + high)
        second = slice(heads.starts[b] + low + shift, heads.starts[b] + high + shift)
        value, deviation = (
            1.0 if rows is None else np.einsum("nd,nd->n", rows[first], rows[second]).mean()
            for rows in (heads.unit, heads.own)
        )
        best = max(best, (float(value), float(deviation)))
    return a, b, *best


def _some_visits(heads: _Heads, people: NDArray[np.str_]) -> list[Agreement]:
    """Return how pairs of neighbouring scans of one person agree, up to 300 spread over all."""
    order = np.lexsort((heads.plane, people))
    pairs = [
        (int(a), int(b))
        for a, b in pairwise(order)
        if people[a] == people[b] and heads.plane[a] == heads.plane[b]
    ]
    step = -(-len(pairs) // MOST_VISITS) or 1
    return [_agreement(heads, a, b) for a, b in pairs[::step]]


def _tracked(pairs: list[Agreement]) -> list[Agreement]:
    return list(pairs) if len(pairs) < 100 else list(track(pairs, "Looking closer", len(pairs)))


class _Detail:
    """Compares the fine structure of middle slices, each read and transformed once for a while."""

    def __init__(self, pixels: NDArray[np.uint8], middles: Index) -> None:
        self._pixels = pixels
        self._middles = middles
        self._still = lru_cache(4096)(lambda scan: self._spectra(scan, np.zeros(1)))
        self._turned = lru_cache(256)(lambda scan: self._spectra(scan, TURNS))

    def __call__(self, a: int, b: int) -> float:
        """Return the best correlation over turns and shifts."""
        product = self._still(a) * self._turned(b).conj()  # (turns, 96, 49)
        over_shifts = fft.irfft2(product, s=(FINE_SIDE, FINE_SIDE))
        near = np.r_[0 : REACH + 1, -REACH:0]
        return float(over_shifts[:, near[:, None], near].max())

    def _spectra(self, scan: int, turns: NDArray[np.float64]) -> NDArray[np.complex64]:
        picture = Image.fromarray(shrink(self._pixels[self._middles[[scan]]], FINE_SIDE)[0])
        turned = np.stack(
            [np.asarray(picture.rotate(turn, Image.Resampling.BILINEAR)) for turn in turns]
        )
        fine = turned - ndimage.gaussian_filter(turned, (0, FINE_WIDTH, FINE_WIDTH))
        return fft.rfft2(_unit(fine.reshape(len(fine), -1)).reshape(fine.shape))


def _graded(look: _Detail, found: Agreement, correlation: float) -> Match:
    a, b, value, deviation = found
    detail = look(a, b)
    kind = ""
    if value >= correlation and detail >= COPY_DETAIL:
        kind = "copy"
    elif value >= LEAST[0] and deviation >= LEAST[1] and detail >= SAME_HEAD:
        kind = "alike"
    return Match(a, b, kind, value, deviation, detail)
