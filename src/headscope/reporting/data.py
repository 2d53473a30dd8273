"""What the page's script draws: logits, weights, maps and thumbnails, as typed arrays in base64."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headscope.analysis import HeadAnalysis
from headscope.analysis.representation.location import analyse_contributions
from headscope.errors import InputError
from headscope.metrics import softmax
from headscope.record import Run

THUMBNAILS: Final = ("test", "errors", "none")
SIDE: Final = 64  # pixels of a thumbnail
ACROSS: Final = 64  # thumbnails in a line of the sprite
MOST_THUMBNAILS: Final = 4096  # a WebP has at most 16,383 lines
MOST_POINTS: Final = 4000  # of a panel of Fig. 2 or 3; a seeded sample beyond


@dataclass(frozen=True)
class PageData:
    """The script's data as JSON values, and what it shows of subjects."""

    values: Mapping[str, Any] = field(default_factory=dict)
    thumbnails: int = 0
    subjects: int = 0


def page_data(
    runs: Sequence[Run],
    heads: Mapping[str, HeadAnalysis],
    pixels: NDArray[np.uint8] | None,
    thumbnails: str,
) -> PageData:
    """Gather what Fig. 2, Fig. 3 and the film strips show.

    Parameters
    ----------
    runs
        In the order of the table, of the same slices.
    heads
        Final layers by name of the run.
    pixels
        Slices (N, H, W), None where they were deleted.
    thumbnails
        Which test slices are embedded: all, those that a run predicts wrongly, or none.
    """
    tests = {run.name: np.flatnonzero(run.features["subset"] == "test") for run in runs}
    rows = np.unique(np.concatenate([*tests.values()]))  # of the store, (M,)
    places = {run.name: np.searchsorted(rows, tests[run.name]) for run in runs}
    panels = [_panel(run, tests[run.name], places[run.name], heads[run.name]) for run in runs]
    wrong = np.zeros(len(rows), dtype=bool)
    for run, panel in zip(runs, panels, strict=True):
        wrong[places[run.name]] |= ~panel.correct
    shown = _shown(rows, wrong, pixels, thumbnails)
    table = runs[0].predictions.iloc[rows]
    named = runs[0].named
    subjects, owner = np.unique(table["subject_id"].to_numpy(str), return_inverse=True)
    values = {
        "classes": runs[0].class_names,
        "subjects": subjects.tolist() if named else [],
        "slices": {
            "subject": _integers(owner),
            "label": _integers(runs[0].features["label"][rows]),
            "title": [
                f"session {row.session_id}, {row.plane} slice {row.slice_index}"
                for row in table.itertuples()
            ],
        },
        "runs": [panel.values for panel in panels],
        "thumbnails": _sprite(pixels, rows, shown),
    }
    return PageData(values, len(shown), len(np.unique(owner[shown])) if named else 0)


@dataclass(frozen=True)
class _Panel:
    """A run's part of the data, and which of its test slices are correct."""

    values: dict[str, Any]
    correct: NDArray[np.bool_]


def _panel(run: Run, test: NDArray[np.intp], place: NDArray[np.intp], head: HeadAnalysis) -> _Panel:
    logits = run.features["logits"][test].astype(np.float64)  # (n, K)
    label = run.features["label"][test]
    predicted = logits.argmax(axis=1)
    probability = softmax(logits)[np.arange(len(logits)), predicted]
    pair = head.pairs[0]
    initial = run.head.get("initial_weight")
    start = None if initial is None else initial[list(pair.pair)]
    some = _sample(pair.feature_count)
    setting = run.setting
    values = {
        "name": run.name,
        "title": setting.title,
        "network": setting.network,
        "variant": setting.variant,
        "place": _integers(place),
        "points": _reals(place_slices(logits, label)),
        "predicted": _integers(predicted),
        "probability": _reals(probability),
        "weights": _reals(np.stack([pair.x, pair.y], axis=1)[some]),
        "initial": None if start is None else _reals(start.T[some]),
        "feature": None if len(some) == pair.feature_count else _integers(some),
        "pair": list(pair.class_names),
        "null": [_plain(pair.null_slope), _plain(pair.r), _plain(pair.r_null)],
        "maps": _maps(run, test),
    }
    return _Panel(values, predicted == label)


def place_slices(logits: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where a slice stands in Fig. 2, (n, 2).

    Of two classes by their two logits, as in the paper; of more by the logit of its class and the
    largest of the others, so that each slice stands once and errors lie above the diagonal.
    """
    if logits.shape[1] == 2:
        return logits
    rows = np.arange(len(logits))
    of_class = logits[rows, label]
    others = logits.copy()
    others[rows, label] = -np.inf
    return np.stack([of_class, others.max(axis=1)], axis=1)


def _maps(run: Run, test: NDArray[np.intp]) -> dict[str, Any] | None:
    """Return what each position adds to the margin of two classes, of the recorded slices."""
    if len(run.class_names) != 2:
        return None
    try:
        positions, _, rows = analyse_contributions(run)
    except (InputError, KeyError):
        return None
    largest = float(np.abs(positions).max(initial=0)) or 1.0
    scaled = np.round(positions / largest * 127).astype(np.int8)
    return {
        "shape": list(positions.shape[1:]),
        "row": _integers(np.searchsorted(test, rows)),
        "values": b64encode(scaled.tobytes()).decode(),
    }


def _sample(count: int) -> NDArray[np.intp]:
    """Return which features are drawn: all, or a seeded sample of so many."""
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))


def _shown(
    rows: NDArray[np.intp],
    wrong: NDArray[np.bool_],
    pixels: NDArray[np.uint8] | None,
    thumbnails: str,
) -> NDArray[np.intp]:
    """Return the places of the slices with a thumbnail, errors first where there are too many."""
    if thumbnails == "none" or pixels is None or rows.max(initial=-1) >= len(pixels):
        return np.zeros(0, dtype=np.intp)
    places = np.flatnonzero(wrong) if thumbnails == "errors" else np.argsort(~wrong, kind="stable")
    return np.sort(places[:MOST_THUMBNAILS])


def _sprite(
    pixels: NDArray[np.uint8] | None, rows: NDArray[np.intp], shown: NDArray[np.intp]
) -> dict[str, Any] | None:
    """Return one picture of all thumbnails, in lines, and which slice stands at each place."""
    if pixels is None or not len(shown):
        return None
    across = min(ACROSS, len(shown))
    lines = -(-len(shown) // across)
    sprite = Image.new("L", (across * SIDE, lines * SIDE))
    for k, place in enumerate(shown):
        small = Image.fromarray(np.asarray(pixels[rows[place]]))
        small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        left, top = (k % across) * SIDE, (k // across) * SIDE
        sprite.paste(small, (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2))
    stream = BytesIO()
    sprite.save(stream, "WEBP", quality=45, method=4)
    return {
        "side": SIDE,
        "across": across,
        "place": _integers(shown),
        "source": "data:image/webp;base64," + b64encode(stream.getvalue()).decode(),
    }


def _reals(values: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _integers(values: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(values, dtype="<i4").tobytes()).decode()


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
