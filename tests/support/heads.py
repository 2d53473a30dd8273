"""Synthetic heads, as pictures and as a stored set of slices."""

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from headscope.files import write_json, write_table

SIDE = 96


def make_head(rng, slices=1):
    """A bright ellipse common to all, with the folds of this head."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    shape = (x / 0.72) ** 2 + (y / 0.88) ** 2 < 1
    folds = gaussian_filter(rng.normal(size=(slices + 8, SIDE, SIDE)), (2.5, 1.6, 1.6))
    folds = folds[4 : 4 + slices] / folds.std()
    grey = shape * (150 + 26 * folds + 60 * np.exp(-4 * (x**2 + y**2)))
    return np.clip(grey, 0, 255).astype(np.uint8)


def write_store(folder, *, subjects=24, sessions=1, alter=None, seed=0):
    """Write a stored set of slices of synthetic heads, two slices per scan; labels take turns."""
    rng = np.random.default_rng(seed)
    rows, pixels = [], []
    for subject in range(subjects):
        for session in range(sessions):
            scan = {"scan": f"s{subject}-{session}.nii", "subject_id": f"P{subject:02d}"}
            scan |= {"session_id": str(session), "label": ("AD", "NC")[subject % 2]}
            pixels.append(make_head(rng, 2))
            rows += [scan | {"plane": "axial", "slice_index": k} for k in range(2)]
    table, stack = pd.DataFrame(rows), np.concatenate(pixels)
    if alter is not None:
        table, stack = alter(table, stack)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "slices.npy", stack)
    write_table(folder / "slices.tsv", table)
    facts = {"class_names": ["AD", "NC"], "sha256": "", "notes": [], "layout": "synthetic"}
    write_json(folder / "slices.json", facts)
    return folder
