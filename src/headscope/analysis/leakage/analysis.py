"""What the accuracy of an experiment is worth: leak gap, permuted labels, identity, dose.

docs/science.md, section 7; docs/trust.md has the scores of real cohorts.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, TypeVar

from headscope.analysis.leakage.dose_response import Dose, dose_response
from headscope.analysis.leakage.findings import (
    Finding,
    gap_finding,
    identity_finding,
    neighbour_finding,
    observed_finding,
    permuted_finding,
    split_finding,
)
from headscope.analysis.leakage.permutation import PermutationTest, permutation_test
from headscope.analysis.leakage.reidentification import Identity, reidentify
from headscope.analysis.leakage.split_gap import Gap, Neighbours, leak_gap, nearest_neighbours
from headscope.analysis.results.table import NAMELESS, shared_subjects
from headscope.analysis.retrain import trains_again
from headscope.audit_record import Audit
from headscope.console import track
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.record import Run
from headscope.tables import Shown, Table

PERMUTATIONS = 200
T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Leakage(Shown):
    """All of it, over the runs of an experiment; findings say in words what it comes to.

    permutations is how many were asked for.
    """

    gaps: tuple[Gap, ...]
    neighbours: tuple[Neighbours, ...]
    permuted: tuple[PermutationTest, ...]
    identity: tuple[Identity, ...]
    doses: tuple[Dose, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    permutations: int

    @property
    def serious(self) -> bool:
        """Whether any check found something serious."""
        return any(finding.level == "serious" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, ready for JSON: what is undefined is null."""
        return _nulls({"serious": self.serious} | asdict(self))

    def tables(self) -> Sequence[Table]:
        """Return the findings as a table."""
        rows = [(each.check, each.level, each.text) for each in self.findings]
        return [Table("Leakage", ("check", "outcome", "found"), rows, self.notes)]


def analyse_leakage(
    runs: Sequence[Run], *, permutations: int = PERMUTATIONS, audit: Audit | None = None
) -> Leakage:
    """Analyse the leakage of an experiment's runs; the same runs give the same result.

    Runs trained on permuted labels may stand among them: they serve the trained regimes, of which
    nothing can be trained again on stored features. `permutations` holds for frozen ones. `audit`
    (`read_audit` of the experiment) tells of heads that are in training under another id.

    Raises
    ------
    InputError
        There is no run, or fewer than one permutation is asked for.
    """
    true = [run for run in runs if "permutation" not in run.settings]
    if not true:
        raise InputError("A leakage analysis needs at least one run on true labels.")
    if permutations < 1:
        raise InputError(f"{permutations} permutations are too few: at least 1 is needed.")
    named = [run for run in true if (run.features["subject_id"] != NO_ID).all()]
    notes = [f"{run.name}: {NAMELESS}." for run in true if run not in named]
    groups = _groups(named)
    gaps = [gap for group in groups if (gap := _gap(group)) is not None]
    likes = [[each for each in runs if _is_like(each, run)] for run in named]
    tests = [
        _permuted(run, permutations, permuted)
        for run, permuted in zip(_tracked(named, "permuted labels"), likes, strict=True)
    ]
    permuted = tuple(test for test in tests if isinstance(test, PermutationTest))
    impossible = {
        run.name: test for run, test in zip(named, tests, strict=True) if isinstance(test, str)
    }
    neighbours = tuple(_each(nearest_neighbours, named))
    identity = tuple(_each(reidentify, [run for group in groups for run in _probed(group)]))
    doses = tuple(dose for group in groups if (dose := _dose(group)) is not None)
    notes += [f"{name}: {reason}" for name, reason in impossible.items()]
    notes += _untested([run for run in named if run.name not in impossible], permuted)
    notes += _unpaired(groups)
    found = [_split_found(group, audit) for group in _by_split(groups)]
    found += [gap_finding(gap) for gap in gaps]
    found += [neighbour_finding(each) for each in _alike(neighbours)]
    found += _permuted_found(_alike(permuted))
    found += [identity_finding(each) for each in _alike(identity)]
    return Leakage(
        gaps=tuple(gaps),
        neighbours=neighbours,
        permuted=permuted,
        identity=identity,
        doses=doses,
        findings=tuple(found),
        notes=tuple(notes),
        permutations=permutations,
    )


def _nulls(value: Any) -> Any:
    """Put None in place of NaN, which JSON has not, and lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _nulls(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(each) for each in value]
    return None if isinstance(value, float) and isnan(value) else value


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Gather the runs of each architecture and regime: splits, seeds and folds together."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((str(run.settings["architecture"]), run.setting.variant), []).append(run)
    return list(groups.values())


def _of_split(group: Sequence[Run], split: str) -> list[Run]:
    return [run for run in group if run.settings["split"] == split]


def _by_split(groups: Sequence[Sequence[Run]]) -> list[list[Run]]:
    parts = [_of_split(group, split) for group in groups for split in ("subject", "slice")]
    return [part for part in parts if part]


def _draw(run: Run) -> tuple[int, int]:
    return int(run.settings["seed"]), int(run.settings.get("fold") or 0)


def _gap(group: Sequence[Run]) -> Gap | None:
    by_slice = {_draw(run): run for run in _of_split(group, "slice")}
    pairs = [
        (run, by_slice[_draw(run)]) for run in _of_split(group, "subject") if _draw(run) in by_slice
    ]
    return leak_gap(pairs) if pairs else None


def _dose(group: Sequence[Run]) -> Dose | None:
    by_subject = _of_split(group, "subject")
    if not by_subject or not all(map(trains_again, by_subject)):
        return None
    return dose_response(by_subject, _of_split(group, "slice"))


def _probed(group: Sequence[Run]) -> list[Run]:
    """Return the runs whose features are asked: by subject, since those heads were never seen."""
    return _of_split(group, "subject") or list(group)


def _is_like(other: Run, run: Run) -> bool:
    """Whether a run is another's like on permuted labels."""
    if "permutation" not in other.settings:
        return False
    return other.name == f"{run.name}-permuted{other.settings['permutation']}"


def _tracked(runs: Sequence[Run], title: str) -> list[Run] | Any:
    return track(runs, title, total=len(runs)) if runs else []


def _each(analysis: Callable[[Run], T | None], runs: Sequence[Run]) -> list[T]:
    return [found for run in runs if (found := analysis(run)) is not None]


def _alike(results: Sequence[Any]) -> list[list[Any]]:
    """Gather results of the same network, regime and split."""
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for each in results:
        groups.setdefault((each.architecture, each.variant, each.split), []).append(each)
    return list(groups.values())


def _split_found(runs: Sequence[Run], audit: Audit | None) -> Finding:
    first = runs[0].settings
    name = f"{first['architecture']} {runs[0].setting.variant}, {first['split']} split"
    shared = max(shared_subjects(run) for run in runs)
    subjects = max(int(run.metrics["test"]["subjects"]) for run in runs)
    return split_finding(name, str(first["split"]), shared, subjects, _duplicated(runs, audit))


def _duplicated(runs: Sequence[Run], audit: Audit | None) -> int:
    """Count the test subjects of whom a duplicate trained, in the split where they are most."""
    checks = [audit.split(run.settings.get("split_sha256")) for run in runs] if audit else []
    return max((check.duplicated for check in checks if check is not None), default=0)


def _permuted_found(groups: Sequence[Sequence[PermutationTest]]) -> list[Finding]:
    honest = sum(tests[0].split == "subject" for tests in groups)
    found = [permuted_finding(tests, max(honest, 1)) for tests in groups]
    return found + [observed_finding(tests) for tests in groups if tests[0].split == "subject"]


def _permuted(run: Run, permutations: int, permuted: Sequence[Run]) -> PermutationTest | str | None:
    """Test a run against permuted labels, or say why no permutation can be had."""
    try:
        return permutation_test(run, permutations=permutations, permuted=permuted)
    except InputError as error:
        return str(error)


def _untested(runs: Sequence[Run], permuted: Sequence[PermutationTest]) -> list[str]:
    tested = {test.run for test in permuted}
    missing = sorted({run.setting.variant for run in runs if run.name not in tested})
    if not missing:
        return []
    return [
        f"Permuted labels were not tried with {', '.join(missing)}: their backbones train (or "
        "their first heads are not recorded), so each permutation is a training; --set "
        "permutations=N runs N of each."
    ]


def _unpaired(groups: Sequence[Sequence[Run]]) -> list[str]:
    if any(_gap_possible(group) for group in groups):
        return []
    return ["No network stands under both splits: --splits subject,slice shows the leak gap."]


def _gap_possible(group: Sequence[Run]) -> bool:
    splits = [{_draw(run) for run in _of_split(group, name)} for name in ("subject", "slice")]
    return bool(splits[0] & splits[1])
