"""What tells the runs of an experiment apart."""

from dataclasses import dataclass
from typing import Final

RIVAL: Final = "rival"  # the regime of what is no network
RIVALS: Final = ("majority", "covariates", "pixels")  # their architectures
UNITS: Final = ("slice", "scan")


@dataclass(frozen=True)
class Setting:
    """What tells the runs of an experiment apart: written to `run.toml`, read back from there.

    variant is the name of the config's row, or else the regime, and ends in -scan where the head
    trains on scans. fold (from 0) is one of folds, both None without cross-validation. unit: what
    the head trains on, a "slice", or a "scan" as the mean of its slices' features. subjects: None
    where names or tables give their ids, else how they are inferred from pixels, "inferred-strict"
    or "inferred-loose", in which the variant then ends.
    """

    architecture: str
    variant: str
    regime: str
    split: str
    seed: int
    fold: int | None = None
    folds: int | None = None
    unit: str = "slice"
    subjects: str | None = None

    @property
    def is_rival(self) -> bool:
        """Whether it is a simple rival of the networks, one of `RIVALS`."""
        return self.regime == RIVAL

    @property
    def freezes(self) -> bool:
        """Whether its regime freezes something, which must end as it began."""
        return self.regime.startswith(("frozen", "layerwise"))

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        part = "" if self.fold is None else f"-fold{self.fold}of{self.folds}"
        network, variant = (
            text.replace("/", "-").replace(":", "-") for text in (self.architecture, self.variant)
        )
        return f"{network}-{variant}{part}-{self.split}-seed{self.seed}"

    @property
    def row(self) -> tuple[str, str, str, str]:
        """What is the same for all seeds and folds: the row of the table."""
        return self.architecture, self.variant, self.regime, self.split

    @property
    def fit(self) -> tuple[int, int | None]:
        """Seed and fold, which tell the runs of a row apart."""
        return self.seed, self.fold

    @property
    def fold_text(self) -> str:
        """Say which fold of a cross-validation it is: '0 of 5'; else ''."""
        if self.fold is None:
            return ""
        return str(self.fold) if self.folds is None else f"{self.fold} of {self.folds}"

    @property
    def title(self) -> str:
        """Say what sets a run apart from others of its network: 'frozen, subject split'."""
        fold = f", fold {self.fold_text}" if self.fold_text else ""
        return f"{self.variant}{fold}, {self.split} split"

    @property
    def network(self) -> str:
        """Say which network it is: 'resnet101, seed 0'."""
        return f"{self.architecture}, seed {self.seed}"
