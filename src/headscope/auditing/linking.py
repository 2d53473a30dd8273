"""Which scans show one head where no ids say so: pairs compared in detail, and their groups.

Each scan is held against those that resemble it most, and a threshold of detail makes groups of
the pairs in two steps, so that one wrong pair cannot join many heads:

    chains   a pair that reaches the threshold joins two scans if it is not much weaker than the
             best that either has: neighbouring slices of one scan hang together by such pairs
    merging  two groups become one where as many scans of either have a partner in the other as
             half the smaller one has: visits of one head, or the parts of a chain
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headscope.audit_record import SAME_HEAD
from headscope.auditing.detail import Detail
from headscope.auditing.duplicates import (
    BLOCK,
    LEAST_SIDE,
    Heads,
    compare_depths,
    describe_heads,
    identical_scans,
    number_pictures,
)
from headscope.console import track
from headscope.errors import InputError

NEAREST: Final = 12  # scans against which each is compared in detail
CHAINED: Final = 0.70  # of the best detail of either scan: least of a pair that makes a chain
SUPPORT: Final = 0.5  # of the size of the smaller group: scans of either with a partner

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Links:
    """The pairs (n, 2) of S scans that were compared, the lower number first, and their detail."""

    scans: int
    pairs: Index
    detail: Floats


def find_links(pixels: NDArray[np.uint8], scan: Index, plane: Index) -> Links:
    """Compare each scan in detail with the 12 of its plane that resemble it most.

    The slices (N, H, W) of a scan stand together, in order; scan and plane (N,) number the scan
    that each shows, from 0, and its plane.
    """
    if min(pixels.shape[1:]) < LEAST_SIDE:
        raise InputError(
            f"Subjects cannot be inferred from slices of {min(pixels.shape[1:])} pixels: --size "
            f"{LEAST_SIDE} is the least at which heads can be told apart."
        )
    starts = np.flatnonzero(np.diff(scan, prepend=-1))
    counts = np.diff([*starts, len(scan)])
    groups, shared = identical_scans(number_pictures(pixels), starts, counts)
    equal = [(members[0], other) for members in groups for other in members[1:]] + shared
    heads = describe_heads(pixels, starts, counts, plane)
    pairs = _nearest(heads)
    look = Detail(pixels, starts, counts, np.arange(len(starts)), heads.plane)
    detail = np.empty(len(pairs))
    for row, (a, b) in enumerate(track(pairs.tolist(), "Comparing heads", len(pairs))):
        detail[row] = look(a, b, compare_depths(heads, a, b)[-1])
    alike = np.array(equal, dtype=np.intp).reshape(-1, 2)
    return Links(
        len(starts), np.concatenate([pairs, alike]), np.concatenate([detail, np.ones(len(alike))])
    )


def group_scans(links: Links, threshold: float) -> Index:
    """Return a number (S,) for each scan, from 0, the same for those of one inferred subject."""
    enough = links.detail >= threshold
    pairs, detail = links.pairs[enough], links.detail[enough]
    best = np.zeros(links.scans)
    for side in pairs.T:
        np.maximum.at(best, side, detail)
    weak = np.minimum(CHAINED * best, SAME_HEAD)[pairs].max(axis=1, initial=0.0)  # (n,)
    graph = coo_array(
        (np.ones(int((detail >= weak).sum())), pairs[detail >= weak].T),
        shape=(links.scans, links.scans),
    )
    group = np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)
    while True:
        merged = _merge(group, pairs, detail)
        if merged is None:
            return group
        group = merged


def _nearest(heads: Heads) -> Index:
    """Return the pairs (n, 2) in which one scan is among the 12 that resemble the other most.

    They are sorted by the second, which is costly to turn and so is turned once.
    """
    centred = heads.unit if heads.centred is None else heads.centred
    middle, count = centred[heads.middles], len(heads.plane)  # (S, 576)
    pairs = [np.empty((0, 2), dtype=np.intp)]
    for start in range(0, count, BLOCK):
        block = np.arange(start, min(start + BLOCK, count))
        alike = middle[block] @ middle.T  # (BLOCK, S)
        alike[heads.plane[block, None] != heads.plane] = -np.inf
        alike[block - start, block] = -np.inf
        near = np.argsort(-alike, axis=1, kind="stable")[:, :NEAREST]
        usable = np.isfinite(np.take_along_axis(alike, near, axis=1))
        pairs.append(np.stack([block[np.nonzero(usable)[0]], near[usable]], axis=1))
    unique = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return unique[np.lexsort((unique[:, 0], unique[:, 1]))]


def _merge(group: Index, pairs: Index, detail: Floats) -> Index | None:
    """Return the groups (S,) with those merged that support each other; None where none do.

    The best pairs of groups come first, and a group merges once at a time: its support is then
    counted again.
    """
    size = np.bincount(group)
    ends = group[pairs]  # (n, 2)
    partners: dict[tuple[int, int], list[set[int]]] = defaultdict(lambda: [set(), set()])
    best: dict[tuple[int, int], float] = defaultdict(float)
    for (a, b), (p, q), value in zip(pairs.tolist(), ends.tolist(), detail.tolist(), strict=True):
        if p == q:
            continue
        key = (min(p, q), max(p, q))
        partners[key][p > q].add(a)
        partners[key][q > p].add(b)
        best[key] = max(best[key], value)
    joined = group.copy()
    taken: set[int] = set()
    for key in sorted(best, key=lambda key: (-best[key], key)):
        needed = max(1, int(np.ceil(SUPPORT * size[list(key)].min())))
        if min(map(len, partners[key])) < needed or taken & set(key):
            continue
        taken |= set(key)
        joined[group == key[1]] = key[0]
    return np.unique(joined, return_inverse=True)[1] if taken else None
