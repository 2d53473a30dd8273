"""The main job on a simulated cohort, without network, GPU or data."""

from dataclasses import replace
from pathlib import Path

from headscope.errors import InputError
from headscope.experiment.config import Config, make_config
from headscope.experiment.run import run
from headscope.simulation.cohort import simulate_cohort

SUBJECTS = 120


def demo_config(out: Path, *, seed: int = 0) -> Config:
    """Return the settings: three regimes on unseen subjects, and frozen on mixed slices."""
    rows = (  # the longest first, as two train at once
        {"regime": "scratch", "splits": ("subject",), "epochs": 6, "learning_rate": 0.05},
        {"regime": "frozen", "splits": ("subject", "slice"), "epochs": 40, "learning_rate": 0.01},
        {"regime": "finetune", "splits": ("subject",), "epochs": 3, "learning_rate": 0.01},
    )
    return make_config(
        data=out / "cohort",
        out=out,
        count=4,
        size=80,
        batch_size=16,
        engine="processes",  # a network this small trains hardly faster by two threads than by one
        workers=2,
        seeds=(seed,),
        architectures=("tf_efficientnet_lite0",),
        rows=rows,
    )


def demo(
    out: Path | str, *, subjects: int = SUBJECTS, seed: int = 0, epochs: int | None = None
) -> Path:
    """Simulate a cohort in `out`/cohort, run the main job on it and return the experiment.

    `epochs` replaces the number of epochs of every row.
    """
    out = Path(out)
    config = demo_config(out, seed=seed)
    if epochs is not None:
        rows = tuple(
            row.model_copy(update={"recipe": replace(row.recipe or config.recipe, epochs=epochs)})
            for row in config.rows
        )
        config = config.model_copy(update={"rows": rows})
    if (out / "experiment.toml").exists() and not (out / "cohort" / "simulation.json").exists():
        raise InputError(f"{out} holds another experiment: name a new folder by --out.")
    simulate_cohort(out / "cohort", subjects=subjects, seed=seed)
    return run(config)
