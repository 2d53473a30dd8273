"""Synthetic volumes of a head, and how they are saved."""

import nibabel as nib
import numpy as np


def head(shape=(40, 50, 60), top=10, neck=True, noise=2.0, seed=0):
    """A head: an ellipsoid `top` voxels below the grid's top, a bright left eye, a thin neck."""
    i, j, k = np.indices(shape, dtype=float)
    centre_k = shape[2] - top - 20
    ball = ((i - 20) / 14) ** 2 + ((j - 25) / 18) ** 2 + ((k - centre_k) / 20) ** 2
    volume = np.where(ball < 1, 100 + 20 * np.cos(i / 3) * np.cos(j / 4), 0)
    if neck:
        volume[14:27, 12:30, : centre_k - 10] = 180
    volume[12:15, 38:41, centre_k - 2 : centre_k + 3] = 250  # left, anterior
    rng = np.random.default_rng(seed)
    return np.clip(volume + rng.normal(0, noise, shape), 0, 255).astype(np.uint8)


def save(path, volume, spacing=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, np.diag([spacing, spacing, spacing, 1])), path)
