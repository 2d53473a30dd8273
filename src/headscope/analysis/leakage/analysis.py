"""The leakage of an experiment: gap, permuted labels, re-identification, dose–response.

docs/science.md, section 7; docs/trust.md has the scores of real cohorts.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from headscope.analysis.leakage.dose_response import DoseResponse, dose_response
from headscope.analysis.leakage.findings import (
    APART,
    gap_finding,
    neighbour_finding,
    observed_finding,
    permuted_finding,
    reidentification_finding,
    split_finding,
)
from headscope.analysis.leakage.permutation import PermutationTest, permutation_test
from headscope.analysis.leakage.reidentification import MOST as MOST_PROBED
from headscope.analysis.leakage.reidentification import Reidentification, reidentify
from headscope.analysis.leakage.split_gap import (
    MOST_QUERIES,
    Gap,
    Neighbours,
    leak_gap,
    nearest_neighbours,
)
from headscope.analysis.parallel import at_once
from headscope.analysis.results.table import NAMELESS, shared_subjects
from headscope.analysis.retrain import trains_again
from headscope.audit_record import Audit, Finding
from headscope.console import track
from headscope.errors import InputError
from headscope.files import encode_nan
from headscope.record import Run
from headscope.tables import Shown, Table
from headscope.threads import one_blas_thread

PERMUTATIONS = 200
SPLITS = ("subject", "slice")
T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Leakage(Shown):
    """The leakage of an experiment's runs; findings state it in words.

    permutations is how many were asked for.
    """

    gaps: tuple[Gap, ...]
    neighbours: tuple[Neighbours, ...]
    permuted: tuple[PermutationTest, ...]
    reidentification: tuple[Reidentification, ...]
    dose_responses: tuple[DoseResponse, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    permutations: int

    @property
    def serious(self) -> bool:
        """Whether any check found something serious."""
        return any(finding.level == "serious" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, ready for JSON: what is undefined is null."""
        return encode_nan({"serious": self.serious} | asdict(self))

    def tables(self) -> Sequence[Table]:
        """Return the findings as a table."""
        rows = [(finding.check, finding.level, finding.text) for finding in self.findings]
        return [Table("Leakage", ("check", "outcome", "finding"), rows, self.notes)]


@one_blas_thread
def analyse_leakage(
    runs: Sequence[Run], *, permutations: int = PERMUTATIONS, audit: Audit | None = None
) -> Leakage:
    """Analyse the leakage of an experiment's runs; the same runs give the same result.

    Parameters
    ----------
    runs
        Of one experiment. Those trained on permuted labels may be among them: they serve the
        trained regimes, of which nothing can be trained again on stored features.
    permutations
        How many classifiers of a frozen run are trained on permuted labels.
    audit
        `read_audit` of the experiment: which subjects are in training under another id.

    Raises
    ------
    InputError
        There is no run, or fewer than one permutation is asked for.

    Examples
    --------
    >>> leakage = hs.analyse_leakage(hs.read_experiment("first"), permutations=20)
    >>> leakage.findings[0].check, leakage.permutations
    ('Split', 20)
    """
    true = [run for run in runs if "permutation" not in run.settings]
    if not true:
        raise InputError("A leakage analysis needs at least one run on true labels.")
    if permutations < 1:
        raise InputError(f"{permutations} permutations are too few: at least 1 is needed.")
    named = [run for run in true if run.named]
    groups = _groups(named)
    tests = _permuted(named, runs, permutations)
    gaps = tuple(gap for group in groups if (gap := _gap(group)) is not None)
    permuted = tuple(test for test in tests.values() if isinstance(test, PermutationTest))
    neighbours = tuple(_results(nearest_neighbours, named))
    probed = tuple(_results(reidentify, [run for group in groups for run in _probed(group)]))
    return Leakage(
        gaps=gaps,
        neighbours=neighbours,
        permuted=permuted,
        reidentification=probed,
        dose_responses=tuple(dose for group in groups if (dose := _dose(group)) is not None),
        findings=(
            *(_split_finding(part, audit) for group in groups for part in _by_split(group)),
            *map(gap_finding, gaps),
            *map(neighbour_finding, _by_setting(neighbours)),
            *_permuted_findings(_by_setting(permuted)),
            *map(reidentification_finding, _by_setting(probed)),
        ),
        notes=(
            *(f"{run.name}: {NAMELESS}." for run in true if run not in named),
            *(f"{name}: {test}" for name, test in tests.items() if isinstance(test, str)),
            *_untested([run for run in named if tests[run.name] is None]),
            *_sampled(named),
            *_unpaired(groups),
        ),
        permutations=permutations,
    )


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Gather the runs of each architecture and regime: splits, seeds and folds together."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.setting.architecture, run.setting.variant), []).append(run)
    return list(groups.values())


def _of_split(group: Sequence[Run], split: str) -> list[Run]:
    return [run for run in group if run.setting.split == split]


def _by_split(group: Sequence[Run]) -> list[list[Run]]:
    return [part for split in (*SPLITS, "given", "site") if (part := _of_split(group, split))]


def _gap(group: Sequence[Run]) -> Gap | None:
    by_slice = {run.setting.fit: run for run in _of_split(group, "slice")}
    pairs = [
        (run, by_slice[run.setting.fit])
        for run in _of_split(group, "subject")
        if run.setting.fit in by_slice
    ]
    return leak_gap(pairs) if pairs else None


def _dose(group: Sequence[Run]) -> DoseResponse | None:
    by_subject = [run for run in _of_split(group, "subject") if run.setting.unit == "slice"]
    if not by_subject or not all(map(trains_again, by_subject)):
        return None
    return dose_response(by_subject, _of_split(group, "slice"))


def _probed(group: Sequence[Run]) -> list[Run]:
    """Return the runs whose features are probed: by subject, as those subjects are unseen."""
    return _of_split(group, "subject") or list(group)


def _permuted(
    named: Sequence[Run], runs: Sequence[Run], permutations: int
) -> dict[str, PermutationTest | str | None]:
    """Test each run against permuted labels, by its name, or say why there is no permutation."""
    tests: dict[str, PermutationTest | str | None] = {}
    for run in track(named, "permuted labels", total=len(named)) if named else ():
        permuted = [other for other in runs if _repeats(other, run)]
        try:
            tests[run.name] = permutation_test(run, permutations=permutations, permuted=permuted)
        except InputError as error:
            tests[run.name] = str(error)
    return tests


def _repeats(other: Run, run: Run) -> bool:
    """Whether a run is the training of another on permuted labels."""
    number = other.settings.get("permutation")
    return number is not None and other.name == f"{run.name}-permuted{number}"


def _results(analysis: Callable[[Run], T | None], runs: Sequence[Run]) -> list[T]:
    return [result for result in at_once(analysis, runs) if result is not None]


def _by_setting(results: Sequence[T]) -> list[list[T]]:
    """Gather results of the same network, regime and split."""
    groups: dict[tuple[str, str, str], list[T]] = {}
    for result in results:
        key: Any = result
        groups.setdefault((key.architecture, key.variant, key.split), []).append(result)
    return list(groups.values())


def _split_finding(runs: Sequence[Run], audit: Audit | None) -> Finding:
    setting = runs[0].setting
    name = f"{setting.architecture} {setting.variant}, {setting.split} split"
    shared = [shared_subjects(run) for run in runs]
    counts = [_duplicated(run, audit) for run in runs]
    # both counts of a sentence are of one test: that with most of what is named
    worst = max(range(len(runs)), key=lambda k: (shared[k], counts[k]))
    subjects = int(runs[worst].metrics["test"]["subjects"])
    most = f" (of {len(runs)} tests the one with most)" if len(runs) > 1 else ""
    return split_finding(name, setting.split, shared[worst], subjects, counts[worst], most)


def _duplicated(run: Run, audit: Audit | None) -> int:
    """Count the test subjects of a run with a duplicate in training."""
    check = audit.split(run.settings.get("split_sha256")) if audit else None
    return 0 if check is None else check.duplicated


def _permuted_findings(groups: Sequence[Sequence[PermutationTest]]) -> list[Finding]:
    apart = [tests for tests in groups if tests[0].split in APART]
    findings = [permuted_finding(tests, max(len(apart), 1)) for tests in groups]
    return findings + [observed_finding(tests) for tests in apart]


def _untested(runs: Sequence[Run]) -> list[str]:
    missing = sorted({run.setting.variant for run in runs})
    if not missing:
        return []
    return [
        f"Permuted labels were not tried with {', '.join(missing)}: their backbones train (or "
        "their first heads are not recorded), so each permutation is a training; --set "
        "permutations=N runs N of each."
    ]


def _sampled(runs: Sequence[Run]) -> list[str]:
    """Say of how many slices are the analyses that would grow with their square."""
    largest = max((int((run.predictions["subset"] == "test").sum()) for run in runs), default=0)
    if largest <= min(MOST_QUERIES, MOST_PROBED):
        return []
    return [
        f"Of up to {largest:,} test slices of a run, nearest neighbours in training are sought for "
        f"{MOST_QUERIES:,}, and re-identification is measured on {MOST_PROBED:,} of whole "
        "subjects: both drawn at random, by a fixed seed."
    ]


def _unpaired(groups: Sequence[Sequence[Run]]) -> list[str]:
    for group in groups:
        fits = [{run.setting.fit for run in _of_split(group, split)} for split in SPLITS]
        if fits[0] & fits[1]:
            return []
    return ["No network was trained under both splits: --splits subject,slice shows the leak gap."]
