"""DICOM series as SimpleITK writes them; importing this skips where there is no SimpleITK."""

import locale

import numpy as np
import pytest

sitk = pytest.importorskip("SimpleITK", reason="DICOM needs SimpleITK: pip install '.[dicom]'")

SHAPE, SPACING = (12, 10, 8), (1.0, 1.5, 2.0)


def volume(seed=0):
    """Without any symmetry, in RAS."""
    return np.random.default_rng(seed).integers(1, 4000, SHAPE).astype(np.uint16)


def write_series(
    folder, ras, series="1.2.3", plane="axial", names="{:03d}.dcm", angle=0.0, skip=()
):
    """Write a RAS volume as files of one plane each; rows of pixels run as scanners store them."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}[plane]
    lps = ras[::-1, ::-1]  # DICOM counts to the left and to the back
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    along = np.eye(3)[:, list(axes)]
    if np.linalg.det(along) < 0:  # the normal of a plane is the cross product of its axes
        along[:, 2] *= -1
        lps = np.flip(lps, axes[2])
    along = tilt @ along
    stack = lps.transpose(axes)  # (columns, rows, slices)
    spacing = np.array(SPACING)[list(axes)]
    for number in range(stack.shape[2]):
        if number in skip:
            continue
        image = sitk.GetImageFromArray(stack[:, :, number].T[None])
        image.SetSpacing(spacing.tolist())
        image.SetDirection(along.ravel().tolist())
        origin = along[:, 2] * spacing[2] * number
        image.SetOrigin(origin.tolist())
        image.SetMetaData("0020|000e", series)
        image.SetMetaData("0020|0013", str(stack.shape[2] - number))  # files run downwards
        position, turn = origin, along[:, :2].T.ravel()
        image.SetMetaData("0020|0032", "\\".join(f"{value:.10g}" for value in position))
        image.SetMetaData("0020|0037", "\\".join(f"{value:.10g}" for value in turn))
        image.SetMetaData("0008|0060", "MR")
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetImageIO("GDCMImageIO")
        image.SetMetaData("0008|0018", f"{series}.{number + 1}")
        image.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.4")
        path = folder / names.format(stack.shape[2] - number)
        plain = path if path.suffix == ".dcm" else path.with_name(path.name + ".dcm")
        writer.SetFileName(str(plain))
        spoken = locale.setlocale(locale.LC_ALL)
        writer.Execute(image)
        locale.setlocale(locale.LC_ALL, spoken)  # writing DICOM leaves the process in locale C
        plain.rename(path)
    return folder
