"""Can facts that have nothing to do with anatomy tell the classes apart?

A network learns what is easiest: a border, a grid size or a file format that goes with the class
teaches it nothing about brains, and its accuracy on new subjects of the same cohort looks real.
Each family of facts is given to a random forest alone, cross-validated by subject; a head under
several ids counts as one subject, or the forest would know it again and seem to tell its label.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray
from PIL import Image

from headscope.audit_record import MARGIN, STRONG, Shortcut
from headscope.console import track
from headscope.scans.discovery import is_picture
from headscope.scans.header import UNREADABLE, Refused, read_header, scan_files

FOLDS: Final = 5
TREES = 100
FEWEST: Final = 5  # subjects of a class; with fewer, nothing can be said
DRAWS: Final = 1000
LEVEL: Final = 0.05  # of all intervals together, by Bonferroni
EDGE: Final = 0.02  # width of a border, as a share of the side
CORNER: Final = 0.08

SUFFIX: Final = re.compile(
    r"\.(?:(?:nii|hdr|img)(?:\.gz)?|mgh|mgz|dcm|ima|jpe?g|png|tiff?)$", re.IGNORECASE
)

FAMILIES: Final = {  # name: what it holds; whether anatomy may well have a part in it
    "grid": ("number of voxels or pixels along each axis", False),
    "spacing": ("millimetres from voxel to voxel", False),
    "file": ("format, datatype, stored orientation and scaling", False),
    "file size": ("bytes of the file; what is packed well depends on what it shows", True),
    "border": ("brightness of the edges and corners of the slices", False),
    "background": ("level and spread of the darkest tenth of the pixels", False),
    "brightness": ("mean, spread and percentiles of the slices, share of black", True),
}

Floats = NDArray[np.float64]


def find_shortcuts(
    facts: pd.DataFrame, label: NDArray[Any], subject: NDArray[Any]
) -> list[Shortcut]:
    """Return one `Shortcut` per family of facts.

    facts (S, F) has one row per scan, in columns "family: fact" of numbers or text; label (S,) is
    the class of each scan. Scans with one value of subject (S,), as duplicates have, stay in one
    fold and count as one subject.
    """
    columns = {
        family: [name for name in facts.columns if name.startswith(f"{family}: ")]
        for family in FAMILIES
    }
    return [
        _shortcut(family, facts[columns[family]], label, subject)
        for family in track(list(FAMILIES), "Trying shortcuts", len(FAMILIES))
    ]


def scan_facts(files: Iterable[Path] | None, scans: int) -> pd.DataFrame:
    """Return grid, spacing and file facts of each scan, from headers alone; unknown ones are NaN.

    Only geometry and storage are asked for: no name, date or description leaves a header.
    """
    if files is None:
        return pd.DataFrame(index=range(scans))
    return pd.DataFrame(map(_file_facts, files), index=range(scans))


def _file_facts(path: Path) -> dict[str, Any]:
    files = [file for file in dict.fromkeys(scan_files(path)) if file.is_file()]
    if not files:
        return {}
    suffix = SUFFIX.search(path.name)
    facts: dict[str, Any] = {
        "file: format": suffix[0] if suffix is not None else "other",  # others may be part of an id
        "file size: bytes": float(sum(file.stat().st_size for file in files)),
    }
    read = _picture_facts if is_picture(path.name) else _header_facts
    try:
        with np.errstate(all="ignore"):
            return facts | read(path)
    except Refused:
        return facts
    except UNREADABLE:
        return facts


def _header_facts(path: Path) -> dict[str, Any]:
    header = read_header(path)
    orientation = "".join(aff2axcodes(header.affine)) if header.oriented else "none"
    facts: dict[str, Any] = {
        "file: datatype": str(header.dtype),
        "file: orientation": orientation,
        "file: slope": header.slope,
        "file: intercept": header.intercept,
    }
    facts |= {f"grid: axis {n}": float(size) for n, size in enumerate(header.shape[:3], start=1)}
    return facts | {
        f"spacing: axis {n}": float(mm) for n, mm in enumerate(header.spacing_mm, start=1)
    }


def _picture_facts(path: Path) -> dict[str, Any]:
    with Image.open(path) as picture:
        tables = getattr(picture, "quantization", None) or {}
        return {
            "file: datatype": picture.mode,
            "file: compression": float(sum(map(sum, tables.values()))),
            "grid: axis 1": float(picture.width),
            "grid: axis 2": float(picture.height),
        }


def slice_facts(pixels: NDArray[np.uint8], starts: NDArray[np.intp]) -> pd.DataFrame:
    """Return brightness, background and border facts of each scan: the mean over its slices.

    pixels (N, H, W); the slices of scan s are rows starts[s] up to the next.
    """
    box = _content_box(pixels)
    rows = []
    for start, stop in zip(starts, [*starts[1:], len(pixels)], strict=True):
        whole = np.asarray(pixels[start:stop])  # (n, H, W)
        block = whole.astype(np.float32)
        frame = 0, block.shape[1], 0, block.shape[2]
        rows.append(_brightness(whole) | dict(_borders(block, "frame", frame)))
        rows[-1] |= dict(_borders(block, "content", box))
    return pd.DataFrame(rows)


Box = tuple[int, int, int, int]  # top, bottom, left, right


def _content_box(pixels: NDArray[np.uint8]) -> Box:
    """Return where the cohort's slices begin behind the black that pads them square."""
    step = max(1, len(pixels) // 2000)
    seen = np.zeros(pixels.shape[1:], dtype=bool)
    for picture in pixels[::step]:
        seen |= picture > 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return 0, pixels.shape[1], 0, pixels.shape[2]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _brightness(block: NDArray[np.uint8]) -> dict[str, float]:
    """Return the brightness facts of a scan's slices (n, H, W), from counts of their greys."""
    greys = np.arange(256)
    offset = 256 * np.arange(len(block))[:, None]
    values = (block.reshape(len(block), -1) + offset).ravel()
    counts = np.bincount(values, minlength=256 * len(block)).reshape(-1, 256)  # (n, 256)
    # of each slice, how many pixels of each grey belong to its darkest tenth
    tenth = np.minimum(np.cumsum(counts, axis=1), max(1, block[0].size // 10))
    darkest = np.diff(tenth, axis=1, prepend=0).sum(axis=0)
    whole = counts.sum(axis=0)
    mean, sd = _moments(greys, whole)
    facts = {"brightness: mean": mean, "brightness: sd": sd}
    ranks = np.array([0.50, 0.75, 0.90, 0.99]) * (block.size - 1)
    below = np.searchsorted(np.cumsum(whole), np.floor(ranks), side="right")
    above = np.searchsorted(np.cumsum(whole), np.ceil(ranks), side="right")
    percentiles = below + (ranks - np.floor(ranks)) * (above - below)
    facts |= {
        f"brightness: {name}": float(value)
        for name, value in zip(("median", "75%", "90%", "99%"), percentiles, strict=True)
    }
    mean, sd = _moments(greys, darkest)
    black = float(whole[0] / block.size)
    return facts | {"background: mean": mean, "background: sd": sd, "brightness: black": black}


def _moments(greys: NDArray[np.intp], counts: NDArray[np.intp]) -> tuple[float, float]:
    """Return mean and standard deviation of greys that occur so often."""
    mean = float(greys @ counts / counts.sum())
    return mean, float(np.sqrt((greys - mean) ** 2 @ counts / counts.sum()))


def _borders(block: NDArray[np.float32], name: str, box: Box) -> Iterator[tuple[str, float]]:
    """Yield mean and maximum of the four edges and corners of a box in each slice."""
    inside = block[:, box[0] : box[1], box[2] : box[3]]
    height, width = inside.shape[1:]
    edge = max(1, round(EDGE * block.shape[1]))
    corner = max(1, round(CORNER * block.shape[1]))
    strips = {
        "top": inside[:, :edge],
        "bottom": inside[:, height - edge :],
        "left": inside[:, :, :edge],
        "right": inside[:, :, width - edge :],
        "top left": inside[:, :corner, :corner],
        "top right": inside[:, :corner, width - corner :],
        "bottom left": inside[:, height - corner :, :corner],
        "bottom right": inside[:, height - corner :, width - corner :],
    }
    for place, strip in strips.items():
        yield f"border: {name} {place} mean", float(strip.mean())
        yield f"border: {name} {place} maximum", float(strip.max(axis=(1, 2)).mean())


def _shortcut(
    family: str, facts: pd.DataFrame, label: NDArray[Any], subject: NDArray[Any]
) -> Shortcut:
    holds, anatomical = FAMILIES[family]
    numbers = _numbers(facts)
    shortcut = partial(Shortcut, family, holds, anatomical, list(numbers.columns))
    untried = partial(shortcut, auc=None, low=None, high=None, raised=False, serious=False)
    if facts.empty or facts.isna().all(axis=None):
        note = "not known: the files do not say it, or are not at hand"
        return untried(outcome="unknown", note=note)
    if not len(numbers.columns):
        return untried(outcome="constant", note="the same in every scan")
    subjects = pd.DataFrame({"label": label, "subject": subject}).drop_duplicates()
    sizes = subjects["label"].value_counts()
    if len(sizes) < 2:
        return untried(outcome="too few", note="not tried: there is one class")
    if sizes.min() < FEWEST:
        note = (
            f"not tried: a class has {sizes.min()} subjects, duplicates counted once, "
            f"and {FEWEST} are needed"
        )
        return untried(outcome="too few", note=note)
    probabilities = _cross_validated(numbers.to_numpy(float), label, subject)
    auc, low, high = _auc_of_subjects(probabilities, label, subject)
    raised = low > 0.5 + MARGIN
    serious = raised and low > (STRONG if anatomical else 0.0)
    return shortcut(auc=auc, low=low, high=high, raised=raised, serious=serious, outcome="tried")


def _numbers(facts: pd.DataFrame) -> pd.DataFrame:
    """Return facts that vary as numbers; of text, one column a value, most frequent ones first."""
    columns = {}
    for name in facts.columns:
        values = facts[name]
        if values.nunique(dropna=False) < 2:
            continue
        if pd.api.types.is_numeric_dtype(values):
            columns[name] = values.fillna(-1.0)
            continue
        for value in values.value_counts().index[:20]:
            columns[f"{name} {value}"] = (values == value).astype(float)
    return pd.DataFrame(columns, index=facts.index)


def _cross_validated(facts: Floats, label: NDArray[Any], subject: NDArray[Any]) -> Floats:
    """Return the probability (S, K) of each class by forests that never saw the subject."""
    from sklearn.ensemble import RandomForestClassifier  # takes a second to load
    from sklearn.model_selection import StratifiedGroupKFold

    classes, k = np.unique(label, return_inverse=True)
    probabilities = np.zeros((len(label), len(classes)))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for train, test in folds.split(facts, k, subject):
        forest = RandomForestClassifier(
            TREES, min_samples_leaf=3, class_weight="balanced", random_state=0
        ).fit(facts[train], k[train])
        probabilities[np.ix_(test, forest.classes_)] = forest.predict_proba(facts[test])
    return probabilities


def _auc_of_subjects(
    probabilities: Floats, label: NDArray[Any], subject: NDArray[Any]
) -> tuple[float, float, float]:
    """Return the AUC over subjects and its interval, from draws of subjects within class."""
    names, k = np.unique(label, return_inverse=True)
    table = pd.DataFrame(probabilities).groupby([k, np.asarray(subject)]).mean()
    k = table.index.get_level_values(0).to_numpy()  # (P,): a subject with two labels counts twice
    values = table.to_numpy()  # (P, K)
    positives = range(1, 2) if len(names) == 2 else range(len(names))
    rng = np.random.default_rng(0)
    share = {c: np.flatnonzero(k == c) for c in range(len(names))}
    drawn = np.empty(DRAWS)
    for draw in range(DRAWS):
        rows = np.concatenate([rng.choice(members, len(members)) for members in share.values()])
        drawn[draw] = np.mean([_auc(values[rows, c], k[rows] == c) for c in positives])
    auc = float(np.mean([_auc(values[:, c], k == c) for c in positives]))
    tail = LEVEL / len(FAMILIES) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return auc, float(low), float(high)


def _auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve by ranks (Mann-Whitney), ties counting half."""
    from scipy.stats import rankdata

    ups, downs = positive.sum(), (~positive).sum()
    return float((rankdata(scores)[positive].mean() - (ups + 1) / 2) / downs)
