"""What was assumed of scans or is odd about them → sentences that name and count them."""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

NAMED: Final = 3  # so many scans a sentence names
EMPTY_HINT: Final = (
    "a mask or label map, a CT without --window, or no head of that size and orientation"
)


class Remarks(NamedTuple):
    """The notes on one scan, and how many of its slices show nothing."""

    scan: str
    notes: Collection[str]
    empty: int
    slices: int

    @property
    def lines(self) -> list[str]:
        """The notes and a sentence on empty slices, without full stops."""
        if not self.empty:
            return [*self.notes]
        return [*self.notes, f"{self.empty} of {self.slices} slices show nothing"]


def summarise_remarks(remarks: Sequence[Remarks]) -> list[str]:
    """Return one sentence for each kind of note, and one on slices that show nothing."""
    by_note: dict[str, list[str]] = {}
    for scan in remarks:
        for note in scan.notes:
            by_note.setdefault(note, []).append(scan.scan)
    total = len(remarks)
    sentences = [
        f"{note}: {len(scans)} of {total} scans ({_listed(scans)})."
        for note, scans in by_note.items()
    ]
    empty = [scan for scan in remarks if scan.empty]
    if empty:
        slices = f"{sum(scan.empty for scan in empty)} of {sum(scan.slices for scan in remarks)}"
        counts = _listed([f"{scan.scan}: {scan.empty} of {scan.slices}" for scan in empty])
        sentences.append(
            f"{slices} slices show nothing but one grey, in {len(empty)} of {total} scans "
            f"({counts}): {EMPTY_HINT}."
        )
    return sentences


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
