"""Small cohorts of volumes, and experiments on them that are trained in seconds."""

from pathlib import Path

import nibabel as nib
import numpy as np

import headscope.experiment.run as run_module
from headscope.experiment.config import make_config


def write_cohort(folder: Path, subjects: int = 6, classes=("AD", "NC")) -> Path:
    """Class folders of small volumes, a bright ball in each whose size tells the class."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for subject in range(subjects):
            volume = 400 * (radius < 0.9) + 300 * (radius < 0.3 + 0.2 * k)
            volume = volume + rng.normal(0, 30, radius.shape)
            scan = nib.Nifti1Image(np.clip(volume, 0, 1000).astype(np.int16), np.diag([8, 8, 8, 1]))
            nib.save(scan, folder / name / f"sub-{name}{subject}_T1w.nii.gz")
    return folder


def settings(data, out, **changes):
    known = {
        "data": data,
        "out": out,
        "count": 4,
        "size": 32,
        "architectures": ["timm/test_resnet"],
        "weights": "random",
        "epochs": 2,
        "learning_rate": 0.05,
        "batch_size": 8,
        "splits": ["subject", "slice"],
        "workers": 1,
        "rivals": [],
    }
    return make_config(**(known | changes))


def fail(monkeypatch, of, error):
    """Let training fail in the runs whose title holds `of`."""
    trained = run_module.train

    def train(*args, title, **options):
        if of in title:
            raise error
        return trained(*args, title=title, **options)

    monkeypatch.setattr(run_module, "train", train)
