"""The axial slices of OASIS-2 (Marcus et al. 2010) that the benchmarks of training share."""

from pathlib import Path

import numpy as np

from headscope.cohort.layouts import find_cohort
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices
from headscope.splits.files import ensure_split

DATA = Path(__file__).parents[2] / "shared" / "data" / "oasis2"


def oasis2_slices(data, folder, size):
    """Return the set of axial slices, demented and nondemented, taken once."""
    cohort = find_cohort(data, plane="axial")
    return write_slices(cohort, folder / "slices", SliceSpec(count=1, size=size), workers=2)


def subject_split(slices, folder):
    """Return the subset of each slice (N,), subjects kept apart, 5:2:3."""
    path = folder / "subject.tsv"
    return ensure_split(path, slices.table, kind="subject", ratio=(5, 2, 3), seed=0)


def repeated(slices, total):
    """Return `total` slices and labels: those there are, repeated, for timing only."""
    rows = np.arange(total) % len(slices.pixels)
    return np.ascontiguousarray(slices.pixels[rows]), slices.labels[rows]
