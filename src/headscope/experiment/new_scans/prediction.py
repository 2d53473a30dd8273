"""What a run says of new scans, as values, tables and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from headscope.errors import InputError
from headscope.files import encode_nan, write_json, write_table
from headscope.tables import Column, Shown, Table

JOINED: Final = {"mean": "the mean", "logits": "the mean of the logits", "vote": "the votes"}
FORMATS: Final = (".tsv", ".json")


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Shown):
    """What a run predicts for new scans.

    Attributes
    ----------
    slices
        One row per slice: scan, file, plane, slice_index, predicted, probability_<class>. file is
        the name of the picture, or of the file or folder of the scan.
    scans
        One row per scan: scan, slices, predicted, probability_<class>, distance. The probabilities
        of its slices are joined as `aggregate` says and as the run joined those of a subject.
        distance is that to the nearest training scan, over the largest of any training subject to
        the others: above 1 the scan is unlike those that the network was trained on. It is NaN
        where it cannot be judged (docs/predict.md).
    notes
        What was assumed of scans or repaired, and which gave slices that show nothing.
    warnings
        Which scans are unlike those of training, and which were themselves trained on.
    failures
        Why each other scan has no prediction, by scan.
    """

    run: str
    class_names: list[str]
    aggregate: str
    slices: pd.DataFrame
    scans: pd.DataFrame
    notes: Sequence[str] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, the slices of each scan below it."""
        return {
            "run": self.run,
            "class_names": self.class_names,
            "aggregate": self.aggregate,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "scans": [
                _nested(row, self.class_names)
                | {"slices": [_nested(part, self.class_names) for part in self._of(row["scan"])]}
                for row in self.scans.drop(columns="slices").to_dict("records")
            ],
            "failures": dict(self.failures),
        }

    def save(self, path: Path) -> None:
        """Write a table (.tsv), one row per slice with what its scan came to, or all as JSON."""
        if check_format(path) == ".json":
            write_json(path, self.as_dict())
            return
        whole = self.scans.drop(columns="slices").add_prefix("scan_")
        table = self.slices.merge(whole, left_on="scan", right_on="scan_scan", how="left")
        write_table(path, table.drop(columns="scan_scan"))

    def tables(self) -> list[Table]:
        """Return the slices, then the scans."""
        note = f"Run {self.run}; a scan's probability is {JOINED[self.aggregate]} of its slices."
        notes = [note, *self.notes, *self.warnings]
        return [self._table("Slices", self.slices), self._table("Scans", self.scans, notes)]

    def _table(self, title: str, frame: pd.DataFrame, notes: Sequence[str] = ()) -> Table:
        columns = [
            Column(
                name.removeprefix("probability_").replace("distance", "Distance"), format="fraction"
            )
            if name.startswith("probability_") or name == "distance"
            else Column(name.replace("_", " ").capitalize())
            for name in frame.columns
        ]
        return Table(title, columns, frame.to_numpy(object).tolist(), notes)

    def _of(self, scan: str) -> list[dict[Any, Any]]:
        rows = self.slices[self.slices["scan"] == scan]
        return rows.drop(columns="scan").to_dict("records")


def check_format(path: Path) -> str:
    """Return the suffix of a file of predictions; InputError where it is none of the two."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"Unknown format of {path}: choose a name that ends in .tsv or .json.")
    return suffix


def _nested(row: Mapping[Any, Any], names: list[str]) -> dict[str, Any]:
    plain = {key: value for key, value in row.items() if not key.startswith("probability_")}
    return encode_nan(plain) | {
        "probabilities": {name: row[f"probability_{name}"] for name in names}
    }
