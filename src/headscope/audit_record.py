"""What the audit of a cohort's slices came to, as values, and the file that keeps them.

`cohort/audit` makes an `Audit`; `audit.json` in the experiment holds it, and whoever reports or
analyses reads it here, without scans and without a forward pass. Levels and counts decide; the
texts of findings are for the reader alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from headscope.files import sha256, write_json
from headscope.manifest import DAMAGE, MISSING, content_hash, folder_problems
from headscope.tables import Shown, Table

FORMAT: Final = 3  # of the file and of what is computed: another one is made again
MOST_NAMED: Final = 3  # splits that a line names one by one
LEVELS: Final = ("serious", "notice", "fine", "not checked")

# What the checks decide by, here so that pages and sentences name the values that are used.
SIDE: Final = 24  # pixels of slices that are correlated
FINE_SIDE: Final = 96  # pixels of slices that are compared in detail
MOST_TURN: Final = 2  # degrees by which they are turned
REACH: Final = 3  # pixels by which they are moved
SAME_HEAD: Final = 0.60  # least detail of two scans of one subject
COPY_DETAIL: Final = 0.93  # least detail of a copy
MARGIN: Final = 0.05  # above 0.5: a forest's luck with folds, which no interval over subjects holds
STRONG: Final = 0.80  # what brightness may tell by anatomy alone stays below

Subsets = tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    kind is "identical", "copy", "alike", "shared" (single slices), "labels", "split" or
    "shortcut"; name is the split or the family of facts, else empty. level is one of `LEVELS`.
    check and text are words; counts hold the numbers that they speak of.
    """

    kind: str
    name: str
    check: str
    level: str
    text: str
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Two scans that show one head; each field of two holds the first's and the second's.

    kind is "identical", "copy" or "alike". subsets tells for each split file in which subsets the
    slices of the two are. rows number their middle slices in `slices.npy`; pictures (2, H, W) are
    those slices, and are not kept in the file.
    """

    __pydantic_config__: ClassVar = {"arbitrary_types_allowed": True}  # arrays

    kind: str
    scans: tuple[str, str]
    subjects: tuple[str, str]
    sessions: tuple[str, str]
    labels: tuple[str, str]
    subsets: dict[str, tuple[Subsets, Subsets]]
    rows: tuple[int, int]
    correlation: float
    deviation: float
    detail: float
    pictures: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def crosses(self, split: str) -> bool:
        """Whether the two are in more than one subset of a split, taken together."""
        first, second = self.subsets.get(split, ((), ()))
        return len({*first, *second}) > 1


@dataclass(frozen=True)
class SplitCheck:
    """One split: what it assigns, and what stands in training and in test all the same.

    unit is what it assigns, "subject" or "slice". sha256 is `split_sha256` of the runs that train
    by it, empty where the file does not give every slice one subset. subjects counts those it
    names, shared lists those in several subsets. Of the tested subjects (of pictures without ids:
    pictures), duplicated have a duplicate under another id in training; of the test_slices,
    equal_slices are equal in every pixel to a training slice. crossing counts pairs of scans that
    are in several subsets, by kind. inferred tells that its subjects were inferred from pixels.
    """

    name: str
    unit: str
    sha256: str
    subjects: int
    shared: list[str]
    tested: int
    duplicated: int
    test_slices: int
    equal_slices: int
    crossing: dict[str, int]
    inferred: bool = False


@dataclass(frozen=True)
class Shortcut:
    """How well one family of facts alone predicts the label, over subjects it was not shown.

    Duplicates under several ids count as one subject.
    outcome is "tried", "constant" (the same in every scan), "unknown" (the facts are not at hand)
    or "too few" (subjects, or classes). auc is the area under the ROC curve over subjects (of
    several classes, the mean of one against the rest), low to high its interval, which holds for
    all families together at 95%; None unless tried. raised tells that low exceeds 0.55, serious
    that anatomy cannot explain it.
    """

    family: str
    holds: str
    anatomical: bool
    facts: list[str]
    auc: float | None
    low: float | None
    high: float | None
    raised: bool
    serious: bool
    outcome: str
    note: str = ""

    def beside_chance(self) -> str:
        """Say how an AUC that is not raised stands to chance, by its interval."""
        if self.low is None or self.high is None:
            raise ValueError("not tried")
        if self.high < 0.5:  # cross-validation falls below where nothing is there to be learned
            return "is below chance and predicts nothing"
        return "is hardly above chance" if self.low > 0.5 else "may be chance"


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """What was found in a cohort, check by check in `findings`, and what it rests on.

    unit is what its counts are of: "subjects", or "pictures" where some name no subject. visits
    are pairs of scans known to be of one subject, and how many of them were recognised: how well a
    subject under two ids would be found here. conflicts are subjects with several labels. pairs
    lists the first of the pairs; the counts of `findings` and `splits` are of all.
    """

    path: str
    layout: str
    unit: str
    scans: int
    subjects: int
    slices: int
    classes: dict[str, int]
    findings: list[Finding]
    pairs: list[Pair]
    visits: tuple[int, int]
    conflicts: dict[str, list[str]]
    splits: list[SplitCheck]
    shortcuts: list[Shortcut]
    notes: list[str]

    @property
    def serious(self) -> bool:
        """Whether any check found something serious."""
        return any(finding.level == "serious" for finding in self.findings)

    def tables(self) -> list[Table]:
        """Return the findings, one per row."""
        rows = [(finding.check, finding.level, finding.text) for finding in self.findings]
        title = f"Audit of {self.path}: {self.layout}"
        return [Table(title, ("Check", "Outcome", "Found"), rows, self.notes)]

    def split(self, sha256: str | None) -> SplitCheck | None:
        """Return the check of the split that a run trained by: `split_sha256` of its settings."""
        return next((split for split in self.splits if sha256 and split.sha256 == sha256), None)

    def telling(self) -> list[Shortcut]:
        """Return the shortcuts that tell the label and that anatomy cannot explain."""
        return [shortcut for shortcut in self.shortcuts if shortcut.serious]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, ready for JSON."""
        bare = replace(self, pairs=[replace(pair, pictures=None) for pair in self.pairs])
        facts = {"serious": self.serious} | asdict(bare)
        for pair in facts["pairs"]:
            del pair["pictures"]
        return facts

    def __str__(self) -> str:
        """Return a line for each check."""
        return "\n".join(f"{f.level:11}  {f.check}: {f.text}" for f in self.findings)


def summary_line(audit: Audit) -> str:
    """Return in one line what an audit found, for a terminal."""
    serious = [finding for finding in audit.findings if finding.level == "serious"]
    if not serious:
        return "Audit of the slices: nothing serious."
    checks = [finding.check for finding in serious]
    splits = [finding.check for finding in serious if finding.kind == "split"]
    if len(splits) > MOST_NAMED:
        checks = [check for check in checks if check not in splits] + [f"{len(splits)} splits"]
    count = "1 serious finding" if len(serious) == 1 else f"{len(serious)} serious findings"
    return (
        f"Audit of the slices: {count} ({'; '.join(checks)}); the report and audit.json say more."
    )


def audit_key(experiment: Path) -> dict[str, Any]:
    """Return what an audit is made from: the hash of the slices, and of each split file.

    The hash of the slices is None where they are no longer in the experiment.
    """
    settings = experiment / "slices" / "slices.json"
    slices = None
    if settings.is_file():
        slices = json.loads(settings.read_text(encoding="utf-8")).get("sha256")
    files = {path.stem: sha256(path) for path in split_files(experiment)}
    return {"format": FORMAT, "slices": slices, "splits": files}


def split_files(experiment: Path) -> list[Path]:
    """Return the split files of an experiment, without the tables of how balanced they are."""
    tables = sorted((experiment / "splits").glob("*.tsv"))
    return [path for path in tables if not path.name.endswith(".balance.tsv")]


def save_audit(experiment: Path, audit: Audit) -> Path:
    """Write `audit.json`: no path, no date, so that the same slices give the same bytes."""
    facts = audit.to_dict()
    del facts["path"]
    key = audit_key(experiment)
    stored = {"key": key, "sha256": content_hash([key, facts])} | facts
    write_json(experiment / "audit.json", stored)
    return experiment / "audit.json"


def add_splits(experiment: Path, other: Path) -> None:
    """Add to `audit.json` what that of another experiment on the same slices says of more splits.

    A split of a name that is there is left out; so is all of a file that cannot be read.
    """
    try:
        stored, more = (
            json.loads((folder / "audit.json").read_text(encoding="utf-8"))
            for folder in (experiment, other)
        )
        alike = all(stored["key"][name] == more["key"][name] for name in ("format", "slices"))
        if not (alike and _is_whole(stored) and _is_whole(more)):
            return
        names = {split["name"] for split in more["splits"]}
        names -= {split["name"] for split in stored["splits"]}
        if not names:
            return
        _add(stored, more, names)
    except DAMAGE:
        return
    facts = {name: value for name, value in stored.items() if name not in ("key", "sha256")}
    stored["sha256"] = content_hash([stored["key"], facts])
    write_json(experiment / "audit.json", stored)


def _add(stored: dict[str, Any], more: Mapping[str, Any], names: set[str]) -> None:
    """Add splits by their names, with what findings and pairs of scans say of them."""
    stored["splits"] += [split for split in more["splits"] if split["name"] in names]
    stored["findings"] += [finding for finding in more["findings"] if finding["name"] in names]
    stored["serious"] = any(finding["level"] == "serious" for finding in stored["findings"])
    stored["key"]["splits"] |= {name: more["key"]["splits"].get(name) for name in names}
    pairs = {tuple(pair["rows"]): pair for pair in stored["pairs"]}
    for pair in more["pairs"]:
        subsets = {name: two for name, two in pair["subsets"].items() if name in names}
        if tuple(pair["rows"]) not in pairs:
            stored["pairs"].append({**pair, "subsets": subsets})
        else:
            pairs[tuple(pair["rows"])]["subsets"] |= subsets


def read_audit(experiment: Path | str, *, exact: bool = False) -> Audit | None:
    """Return what the audit of an experiment's slices found.

    Parameters
    ----------
    experiment
        Folder of the experiment.
    exact
        Whether the audit must be of exactly the slices and splits that are there now. By default
        slices and split files that were deleted since are not missed.

    Returns
    -------
    Audit or None
        None where there is no `audit.json` (an experiment of an earlier version), where it is
        damaged, or where slices or splits have changed since it was made.
    """
    from pydantic import TypeAdapter  # takes long to load

    folder = Path(experiment)
    try:
        stored = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        if not _is_whole(stored):
            return None
        current = _is_current(stored["key"], audit_key(folder), exact)
        facts = stored | {"path": str(experiment)}
        return TypeAdapter(Audit).validate_python(facts) if current else None
    except DAMAGE:
        return None


def changed_inputs(experiment: Path) -> list[str]:
    """Say what of an experiment's slices, splits and audit has changed since it was written.

    Files that were deleted since, to save room, are not missed.
    """
    notes = []
    for folder in (experiment / "slices", experiment / "splits"):
        problems = folder_problems(folder).items()
        notes += [f"{folder / name} {why}." for name, why in problems if why != MISSING]
    if not notes and (experiment / "audit.json").is_file() and read_audit(experiment) is None:
        notes.append(
            f"{experiment / 'audit.json'} is left out: it, the slices or the splits have changed "
            "since it was written; 'headscope audit' makes it again."
        )
    return notes


def _is_whole(stored: Mapping[str, Any]) -> bool:
    """Whether a file holds what was written; one of an earlier version has no hash."""
    facts = {name: value for name, value in stored.items() if name not in ("key", "sha256")}
    return stored.get("sha256") in (None, content_hash([stored["key"], facts]))


def _is_current(key: Mapping[str, Any], now: Mapping[str, Any], exact: bool) -> bool:
    """Whether what an audit was made from is what is there now."""
    if exact:
        return key == now
    return (
        key["format"] == now["format"]
        and now["slices"] in (None, key["slices"])
        and now["splits"].items() <= key["splits"].items()
    )
