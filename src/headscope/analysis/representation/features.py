"""What the final layer reads and writes for a subset of slices: classes, subjects, errors.

How far the classes are apart and how dense, whether slices group by diagnosis or by
subject, and which slices are predicted wrongly (docs/science.md, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.arrays import (
    check_classes,
    check_ids,
    check_labels,
    check_names,
    check_pair,
    check_points,
)
from headscope.analysis.blocks import sample_subjects, take_rows
from headscope.analysis.representation.intraclass import Intraclass, intraclass
from headscope.analysis.representation.separation import Separation, separation
from headscope.analysis.stored import stored
from headscope.analysis.units import examples_of, over_scans
from headscope.errors import InputError
from headscope.record import SUBSETS, Run
from headscope.tables import Shown, Table
from headscope.text import show
from headscope.threads import one_blas_thread

Array = NDArray[np.float64]
LISTED = 10
MOST_FEATURES = 12_000  # slices whose features are measured; with 2,048 each, copies take 1 GB
MEASURES = {
    "width": "numbers per slice",
    "within": "scatter within classes",
    "between": "scatter between classes",
    "between_by_chance": "the same by chance",
    "fisher_ratio": "Fisher ratio, between / within",
    "overlap": "overlap along the discriminant, held out",
    "overlap_fitted": "overlap along the discriminant, fitted",
    "silhouette": "silhouette",
    "effective_rank": "effective rank",
    "separation_ratio": "separation",
    "dispersion_ratio": "dispersion",
}
CHI2_95 = 5.991464547107979  # 95% quantile of χ² with 2 degrees of freedom


@dataclass(frozen=True, eq=False)
class Ellipse:
    """Mean of a class in the plane of two logits, with the ellipse that holds 95% of a normal.

    `width` and `height` are whole axes, the first at `angle_deg` from the x axis; NaN where the
    class has fewer than 2 slices.
    """

    class_name: str
    slices: int
    mean: tuple[float, float]
    width: float
    height: float
    angle_deg: float


@dataclass(frozen=True, eq=False, repr=False)
class FeatureAnalysis(Shown):
    """Features and logits of one subset. Undefined numbers are NaN; notes say why.

    Attributes
    ----------
    class_names, class_slices
        The classes, and how many slices each has here.
    logits, features
        The separation of the classes in each space. Of more than 12,000 slices the features of so
        many are measured, those of whole subjects drawn at random; logits are of all.
    intraclass
        Of the logit margin, the logits and the features, by subject and (if known) by session.
        The margin is the logit of the slice's class less the mean of the others'.
    ellipses
        One per class, in the plane of the logits of the classes `pair`.
    wrong
        Slices predicted wrongly, by subject, those with the largest share of them first:
        subject_id, label, wrong, total. Subjects without any are left out.
    reference
        Title of the analysis that the ratios of separation and dispersion refer to; '' for none.
    """

    title: str
    subset: str
    class_names: tuple[str, ...]
    class_slices: tuple[int, ...]
    slices: int
    subjects: int
    slice_accuracy: float
    logits: Separation
    features: Separation
    intraclass: tuple[Intraclass, ...]
    pair: tuple[int, int]
    ellipses: tuple[Ellipse, ...]
    wrong: pd.DataFrame
    reference: str
    notes: tuple[str, ...]

    def tables(self) -> Sequence[Table]:
        """Return the two spaces side by side, the variance between groups, and the wrong slices."""
        name = ", ".join(part for part in ("Features and logits", self.title, self.subset) if part)
        notes = [
            f"{space.capitalize()}: {note}"
            for space, values in (("features", self.features), ("logits", self.logits))
            for note in values.notes
        ]
        if self.reference:
            notes.append(f"Separation and dispersion are in units of {self.reference}.")
        return [
            Table(
                f"{name} ({self.slices:,} slices of {self.subjects:,} subjects)",
                ("measure", "features", "logits"),
                [
                    (text, getattr(self.features, field), getattr(self.logits, field))
                    for field, text in MEASURES.items()
                    if self.reference or not field.endswith("_ratio") or field == "fisher_ratio"
                ],
                [*self.notes, *notes],
            ),
            Table(
                "How alike the slices of one group are, within classes",
                ("of", "group", "groups", "ICC(1)", "share between groups", "share by chance"),
                [
                    (i.of, i.by, i.groups, i.icc, i.between_share, i.chance_share)
                    for i in self.intraclass
                ],
                sorted({i.note for i in self.intraclass if i.note}),
            ),
            Table(
                f"Slices predicted wrongly (slice accuracy {show(self.slice_accuracy)})",
                ("subject_id", "label", "wrong", "total"),
                self.wrong.head(LISTED).to_numpy().tolist(),
                [f"… and {len(self.wrong) - LISTED} subjects more."]
                if len(self.wrong) > LISTED
                else [],
            ),
        ]


@stored
def analyse_features(
    run: Run,
    subset: str = "test",
    reference: Run | FeatureAnalysis | None = None,
    *,
    pair: tuple[int, int] = (0, 1),
) -> FeatureAnalysis:
    """Analyse what a recorded run's final layer read and wrote for one subset.

    Parameters
    ----------
    run
        A finished run.
    subset
        train, val or test.
    reference
        The frozen run of the same network, split and seed, or its analysis.
    pair
        The classes whose logits are the axes of the ellipses.

    Raises
    ------
    InputError
        The subset has no such name, or the reference is of another network, split or seed.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> features = hs.analyse_features(run)
    >>> features.subset, features.class_names
    ('test', ('AD', 'NC'))
    """
    if subset not in SUBSETS:
        raise InputError(f"subset {subset!r} is none of {', '.join(SUBSETS)}.")
    if isinstance(reference, Run):
        _check_same(run, reference)
        reference = analyse_features(reference, subset, pair=pair)
    stored, table = examples_of(run)
    rows = np.flatnonzero(stored["subset"] == subset)
    some = sample_subjects(stored["subject_id"][rows], MOST_FEATURES)
    analysis = feature_analysis(
        take_rows(stored["features"], rows[some]),
        stored["logits"][rows],
        stored["label"][rows],
        stored["subject_id"][rows],
        table["session_id"].to_numpy(str)[rows] if "session_id" in table else None,
        rows=some,
        class_names=run.class_names,
        reference=reference,
        pair=pair,
        title=run.name,
        subset=subset,
    )
    return replace(analysis, notes=(*analysis.notes, *over_scans(run)))


@one_blas_thread
def feature_analysis(
    features: ArrayLike,
    logits: ArrayLike,
    labels: ArrayLike,
    subjects: ArrayLike,
    sessions: ArrayLike | None = None,
    *,
    rows: NDArray[np.int64] | None = None,
    class_names: Sequence[str] | None = None,
    reference: FeatureAnalysis | None = None,
    pair: tuple[int, int] = (0, 1),
    title: str = "",
    subset: str = "",
) -> FeatureAnalysis:
    """Measure separation, dispersion and variance between groups, in features and in logits.

    Parameters
    ----------
    features, logits, labels, subjects, sessions
        (N, D), (N, K), and (N,) each; labels index the columns of `logits`; a session counts
        within its subject.
    rows
        Of which slices (n,) the features (n, D) are, where these are a sample; by default of all.
    class_names
        K names; 'class 0', 'class 1' … if left out.
    reference
        The analysis of the frozen run, to which separation and dispersion are set in ratio.
    pair
        The classes whose logits are the axes of the ellipses.
    title, subset
        The words that name the slices where the analysis shows itself.

    Raises
    ------
    InputError
        The shapes do not agree, a value is not finite, or a label or the pair names no class.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels, subjects = np.repeat([0, 1], 20), np.repeat(np.arange(10), 4)
    >>> features = rng.normal(0, 1, (40, 5)) + 3 * labels[:, None]
    >>> analysis = hs.feature_analysis(features, features[:, :2], labels, subjects)
    >>> analysis.subjects, analysis.slices
    (10, 40)
    """
    F, Z = check_points(features, "features"), check_points(logits, "logits")
    if len(F) != len(Z if rows is None else rows):
        raise InputError(f"features has {len(F)} rows and logits {len(Z)}.")
    N, K = Z.shape
    y, ids = check_labels(labels, N), check_ids(subjects, N, "subjects")
    some = sample_subjects(ids, MOST_FEATURES) if rows is None else rows
    F = F if len(F) == len(some) else F[some]
    names = check_names(class_names, K, "logits")
    check_classes(y, K)
    check_pair(pair, K)
    right = Z.argmax(axis=1) == y if N else np.zeros(0, dtype=bool)
    absent = [name for k, name in enumerate(names) if not (y == k).any()]
    return FeatureAnalysis(
        title=title,
        subset=subset,
        class_names=tuple(names),
        class_slices=tuple(np.bincount(y, minlength=K).tolist()),
        slices=N,
        subjects=len(np.unique(ids)),
        slice_accuracy=float(right.mean()) if N else nan,
        logits=separation(Z, y, ids, reference.logits if reference else None),
        features=separation(F, y[some], ids[some], reference.features if reference else None),
        intraclass=tuple(_intraclasses(F, some, Z, y, ids, sessions)),
        pair=pair,
        ellipses=class_ellipses(Z[:, list(pair)], y, names),
        wrong=_wrong(ids, y, right, names),
        reference=(reference.title or "the reference") if reference else "",
        notes=(*_absent_note(absent), *_sample_note(ids, some)),
    )


def class_ellipses(
    logits: Array, labels: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[Ellipse, ...]:
    """Return the mean and 95% ellipse of each class that has slices, from two logits (N, 2).

    The ellipse holds 95% of the normal distribution of the class's mean and sample covariance.
    """
    ellipses = []
    for k in np.unique(labels).tolist():
        points = logits[labels == k]
        x, y = points.mean(axis=0).tolist()
        axes, angle = (nan, nan), nan
        if len(points) > 1:
            value, vector = np.linalg.eigh(np.cov(points.T))
            axes = tuple(2 * np.sqrt(CHI2_95 * np.maximum(value, 0)))
            angle = float(np.degrees(np.arctan2(vector[1, 1], vector[0, 1]))) % 180
        ellipses.append(
            Ellipse(class_names[k], len(points), (x, y), float(axes[1]), float(axes[0]), angle)
        )
    return tuple(ellipses)


def logit_margin(logits: Array, labels: NDArray[np.int64]) -> Array:
    """Return the logit of each slice's class less the mean of the others', (N,).

    For K = 2 that is the difference of the two logits, with the sign of being right.
    """
    K = logits.shape[1]
    of_class = logits[np.arange(len(logits)), labels]
    return (of_class * K - logits.sum(axis=1)) / (K - 1)


def _intraclasses(
    F: Array,
    some: NDArray[np.int64],
    Z: Array,
    y: NDArray[Any],
    ids: NDArray[Any],
    sessions: ArrayLike | None,
) -> list[Intraclass]:
    groups = {"subject": ids}
    if sessions is not None:
        visits = check_ids(sessions, len(y), "sessions")
        both = pd.MultiIndex.from_arrays([ids, visits])
        groups["session"] = pd.factorize(both)[0].astype(str)
        if (visits == "").any() or (visits == "nan").any():
            del groups["session"]
    everything = np.arange(len(y))
    spaces = {"logits": (Z, everything), "features": (F, some)}
    if Z.shape[1] > 1:
        spaces = {"logit margin": (logit_margin(Z, y), everything)} | spaces
    return [
        intraclass(values, ids[rows], y[rows], of=of, by=by)
        for by, ids in groups.items()
        for of, (values, rows) in spaces.items()
    ]


def _wrong(
    ids: NDArray[Any], y: NDArray[Any], right: NDArray[np.bool_], names: Sequence[str]
) -> pd.DataFrame:
    table = pd.DataFrame(
        {"subject_id": ids, "label": np.array(names)[y], "wrong": ~right, "total": 1}
    )
    table = table.groupby(["subject_id", "label"], as_index=False)[["wrong", "total"]].sum()
    table = table[table["wrong"] > 0].astype({"wrong": np.int64})
    share = (table["wrong"] / table["total"]).rename("share")
    order = pd.concat([-share, -table["wrong"]], axis=1).sort_values(
        ["share", "wrong"], kind="stable"
    )
    return table.loc[order.index].reset_index(drop=True)


def _sample_note(ids: NDArray[Any], some: NDArray[np.int64]) -> tuple[str, ...]:
    if len(some) == len(ids):
        return ()
    return (
        f"Features are measured on {len(some):,} of {len(ids):,} slices, those of "
        f"{len(np.unique(ids[some])):,} subjects drawn at random by a fixed seed; logits on all.",
    )


def _absent_note(absent: list[str]) -> tuple[str, ...]:
    if not absent:
        return ()
    if len(absent) > 5:
        return (f"{len(absent)} of the classes have no slice here.",)
    return (f"No slice here is of {' or '.join(absent)}.",)


def _check_same(run: Run, reference: Run) -> None:
    for name in ("architecture", "split", "seed", "fold"):
        one, other = run.settings.get(name), reference.settings.get(name)
        if one != other:
            raise InputError(
                f"{reference.name} is no reference for {run.name}: {name} {other} instead of {one}."
            )
