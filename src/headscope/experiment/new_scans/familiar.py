"""Whether new scans are unlike those that trained a network, or among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.analysis.novelty import SAME, TrainingScans, training_scans
from headscope.auditing.duplicates import find_matches
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.record import Run
from headscope.slicing.store import SliceSet, open_slices
from headscope.text import fixed

CLOSER: Final = 20  # nearest training scans, by features, that are compared by their folds too
MOST_SLICES: Final = 1000  # of these scans: a second's work
NAMED: Final = 3  # scans that a warning names
SUBSETS: Final = {True: "training", False: "validation"}
GONE: Final = (
    "The slices that trained the network are not in its experiment: whether a scan was among them "
    "is judged by its features alone."
)
KINDS: Final = {
    "identical": "its slices are equal in every pixel to those of {}",
    "shared": "some of its slices are equal in every pixel to slices of {}",
    "copy": "it is a copy of {}",
    "alike": "it shows the head of {}",
    "features": "the network reads of it what it read of {}",
}


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Holds new scans against those on which a run trained and chose.

    slices are those of the experiment; None where they are no longer there (`note` says so), so
    that features alone are compared.
    """

    run: Run
    reference: TrainingScans
    slices: SliceSet | None
    note: str = ""

    def match(
        self, features: NDArray[np.float32], pixels: NDArray[np.uint8], planes: Sequence[str]
    ) -> str:
        """Say which scan of training or validation a scan is or shows; nothing where none."""
        distances = self.reference.distances(features)
        closer = min(CLOSER, max(1, MOST_SLICES // len(pixels)))
        order = np.argsort(distances, kind="stable")[:closer]
        kind, place = "", int(order[0])
        if self.slices is not None:
            kind, place = self._by_pixels(self.slices, order, pixels, planes)
        if not kind and distances[order[0]] <= SAME * np.median(distances):
            kind, place = "features", int(order[0])
        if not kind:
            return ""
        row = self.run.predictions.iloc[self.reference.rows[place][0]]
        subset = SUBSETS[bool(self.reference.trained[place])]
        return KINDS[kind].format(f"{_named(row)} in {subset}")

    def _by_pixels(
        self,
        slices: SliceSet,
        order: NDArray[np.intp],
        pixels: NDArray[np.uint8],
        planes: Sequence[str],
    ) -> tuple[str, int]:
        """Compare a scan with the nearest training scans by pixels and folds: the best match."""
        table = self.run.predictions
        rows = [self.reference.rows[n] for n in order]
        together = np.concatenate(rows)
        counts = [*map(len, rows), len(pixels)]
        subject = [str(table["subject_id"].iloc[part[0]]) for part in rows]
        matches = find_matches(
            np.concatenate([slices.batch(together), pixels]),
            np.repeat(np.arange(len(counts)), counts),
            [*subject, "\0new"],
            plane=np.unique([*table["plane"].iloc[together], *planes], return_inverse=True)[1],
            cohort=[0] * len(rows) + [1],
        )
        new = len(rows)
        candidates: list[tuple[str, int]] = [
            ("identical", min(group)) for group in matches.groups if new in group
        ]
        pairs = [match for match in matches.pairs if match.second == new]
        candidates += [(m.kind, m.first) for m in pairs if m.kind != "identical"]
        candidates += [("shared", first) for first, second in matches.shared if second == new]
        kind, place = candidates[0] if candidates else ("", 0)
        return kind, int(order[place])


def read_familiarity(run: Run) -> Familiarity:
    """Return what new scans are held against, from a run and the slices beside it if they are."""
    folder = run.path.parent.parent / "slices"
    try:
        slices = open_slices(folder)  # pixels go by their size: few of them are read
    except InputError:
        return Familiarity(run, training_scans(run), None, GONE)
    same = slices.sha256 == run.settings.get("slices_sha256")
    return Familiarity(run, training_scans(run), slices if same else None, "" if same else GONE)


def far_warning(shares: dict[str, float], subjects: int) -> str:
    """Say which scans are beyond the limit of `TrainingScans`; shares of it by scan."""
    far = {name: share for name, share in shares.items() if share > 1}
    if not far:
        return ""
    named = ", ".join(f"{name}: {fixed(share, 2)}×" for name, share in [*far.items()][:NAMED])
    more = ", …" if len(far) > NAMED else ""
    are = "scan is" if len(far) == 1 else "scans are"
    return (
        f"{len(far)} of {len(shares)} {are} unlike those that trained the network ({named}{more}): "
        f"farther from them, in what the final layer reads, than any of {subjects} training "
        f"subjects is from the others. Of scans like those of training at most 1 in {subjects + 1} "
        "would be; a prediction for others is a guess."
    )


def trained_warning(matches: dict[str, str]) -> list[str]:
    """Say which scans the network was trained or chosen on; what they match, by scan."""
    shown = [f"{name} is not new to the network: {what}." for name, what in matches.items()]
    rest = len(shown) - NAMED
    return shown if rest < 2 else [*shown[:NAMED], f"So are {rest} other scans."]


def _named(row: "pd.Series[Any]") -> str:
    """Name a scan by subject and session, or by its own name where it has no subject."""
    if row["subject_id"] == NO_ID:
        return str(row.get("scan", "a picture"))
    return f"{row['subject_id']}, session {row['session_id']},"
