"""The null prediction of r on real scans: frozen ResNet-50 features of OASIS-2, three seeds."""

import os
from pathlib import Path

import numpy as np
import pytest

import headscope as hs

WEIGHTS = (
    Path(__file__).parents[1]
    / os.environ.get("HEADSCOPE_TEST_WEIGHTS", "../shared/weights")
    / "resnet50_v1_imagenet_fp16.safetensors"
).resolve()


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.usefixtures("short_search")
@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"needs real weights: there is no {WEIGHTS}")
def test_the_null_predicts_r_on_oasis(real_data, tmp_path, monkeypatch):
    monkeypatch.setattr("headscope.experiment.run.store_findings", lambda *_: None)  # not asked
    config = hs.Config(
        data=real_data / "oasis2",
        out=tmp_path / "out",
        classes={"AD": ("Demented",), "NC": ("Nondemented",)},
        architectures=("resnet50_v1",),
        weights=str(WEIGHTS),
        regimes=("frozen",),
        seeds=tuple(range(3)),
        epochs=30,
        learning_rate=0.01,
        size=64,
        plane="axial",
        keep_model=False,
        rivals=[],
        workers=1,
    )
    runs = hs.read_experiment(hs.run(config))
    assert len(runs) == 3
    for run in runs:
        pair = hs.analyse_head(run).pairs[0]
        x, y = run.head["weight"].astype(np.float64)
        assert pair.r == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
        assert pair.r < -0.3  # trained far enough for the prediction to say something
        assert pair.r_null == pytest.approx(pair.r, abs=0.005)
