"""Fig. 2 and Fig. 3 as small multiples, and the data from which the page's script draws them.

Networks stand in rows and regimes in columns, as in the paper. Arrays are typed arrays in base64;
without the script a small still picture of each panel is seen.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headscope.analysis import HeadAnalysis, PairAnalysis
from headscope.analysis.blocks import sample_slices, sample_subjects
from headscope.analysis.representation.location import analyse_contributions
from headscope.analysis.results.table import all_slices
from headscope.errors import InputError
from headscope.metrics import softmax
from headscope.record import Run
from headscope.reporting.chapters.runs import group_by
from headscope.reporting.numbers import number, say
from headscope.reporting.pictures import png_source
from headscope.reporting.plots import Multiples, Panel

THUMBNAILS: Final = ("test", "errors", "none")
SIDE: Final = 64  # pixels of a thumbnail
ACROSS: Final = 64  # thumbnails in a line of the sprite
MOST_THUMBNAILS: Final = 4096  # a WebP has at most 16,383 lines
SPRITE_BYTES: Final = 1_200_000  # of all thumbnails; of more, the misclassified come first
MOST_DRAWN: Final = 12_000  # test slices in Fig. 2 and the film strips; some subjects' beyond
LEAST_DRAWN: Final = 2_000  # however many panels there are
MOST_MARKS: Final = 48_000  # of all panels of Fig. 2, at 27 bytes each
MOST_POINTS: Final = 4000  # of a panel of Fig. 2 or 3; a seeded sample beyond


def choose_thumbnails(runs: Sequence[Run], asked: str | None) -> str:
    """Return which slices are shown: as asked, or all of the test, none under pseudonyms.

    Raises
    ------
    InputError
        What is asked for is none of `THUMBNAILS`.
    """
    if asked not in (None, *THUMBNAILS):
        raise InputError(f"Unknown thumbnails {asked!r}: choose {', '.join(THUMBNAILS)}.")
    hidden = any(run.settings.get("pseudonymised") for run in runs)
    return asked or ("none" if hidden else "test")


@dataclass(frozen=True)
class PageData:
    """The script's data as JSON values, and what it shows of subjects.

    drawn: of how many test slices it holds logits, and of how many there are.
    """

    content: Mapping[str, Any]
    thumbnails: int
    subjects: int
    drawn: tuple[int, int]

    @property
    def words(self) -> str:
        """How many slices of how many subjects the page holds."""
        drawn, total = self.drawn
        some = (
            f" Fig. 2 draws {drawn:,} of {total:,} test slices, those of subjects drawn at random."
        )
        some = some if drawn < total else ""
        if not self.thumbnails:
            return f"It holds no slice as a picture.{some}"
        subjects = f" of {self.subjects} subjects" if self.subjects else ""
        first = ", misclassified ones first," if self.thumbnails < drawn else ""
        return (
            f"It holds {self.thumbnails} test slices{subjects}{first} as small pictures: share it "
            f"as you would share scans (--thumbnails none leaves them out).{some}"
        )


def page_data(
    runs: Sequence[Run],
    heads: Mapping[str, HeadAnalysis],
    pixels: NDArray[np.uint8] | None,
    thumbnails: str,
) -> PageData:
    """Gather what Fig. 2, Fig. 3 and the film strips show.

    runs: in the order of the table, of the same slices; heads: by name of the run; pixels: slices
    (N, H, W), None where they were deleted; thumbnails: which test slices are embedded, all, those
    that a run predicts wrongly, or none.
    """
    tests = {run.name: np.flatnonzero(run.features["subset"] == "test") for run in runs}
    rows = np.unique(np.concatenate([*tests.values()]))  # of the store, (M,)
    everything = len(rows)
    most = min(MOST_DRAWN, max(LEAST_DRAWN, MOST_MARKS // len(runs)))
    rows = rows[sample_subjects(runs[0].features["subject_id"][rows], most)]
    if len(rows) < everything:
        tests = {name: np.intersect1d(test, rows) for name, test in tests.items()}
    places = {run.name: np.searchsorted(rows, tests[run.name]) for run in runs}
    wrong = np.zeros(len(rows), dtype=bool)
    panels = []
    for run in runs:
        values, correct = _panel(run, tests[run.name], places[run.name], heads[run.name])
        wrong[places[run.name]] |= ~correct
        panels.append(values)
    sprite, shown = _sprite(pixels, rows, _shown(rows, wrong, pixels, thumbnails))
    table = runs[0].predictions.iloc[rows]
    named = runs[0].named
    subjects, owner = np.unique(table["subject_id"].to_numpy(str), return_inverse=True)
    content = {
        "classes": runs[0].class_names,
        "colours": COLOURS,
        "subjects": subjects.tolist() if named else [],
        "slices": {
            "subject": _integers(owner),
            "label": _integers(runs[0].features["label"][rows]),
            "title": [
                f"session {row.session_id}, {row.plane} slice {row.slice_index}"
                for row in table.itertuples()
            ],
        },
        "runs": panels,
        "thumbnails": sprite,
    }
    seen = len(np.unique(owner[shown])) if named else 0
    return PageData(content, len(shown), seen, (len(rows), everything))


def _panel(
    run: Run, test: NDArray[np.intp], place: NDArray[np.intp], head: HeadAnalysis
) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    logits = run.features["logits"][test].astype(np.float64)  # (n, K)
    predicted, slices = logits.argmax(axis=1), all_slices(run)
    drawn = np.isin(np.flatnonzero(run.features["subset"] == "test"), test)
    probability = softmax(logits)[np.arange(len(logits)), predicted]
    pair = head.pairs[0]
    initial = run.head.get("initial_weight")
    start = None if initial is None else initial[list(pair.pair)]
    some = sample_slices(pair.feature_count, MOST_POINTS)  # of the features
    setting = run.setting
    values = {
        "name": run.name,
        "title": setting.title,
        "network": setting.network,
        "variant": setting.variant,
        "place": _integers(place),
        "points": _reals(slices.logits[drawn]),
        "predicted": _integers(predicted),
        "probability": _reals(probability),
        "weights": _reals(np.stack([pair.x, pair.y], axis=1)[some]),
        "initial": None if start is None else _reals(start.T[some]),
        "feature": None if len(some) == pair.feature_count else _integers(some),
        "pair": list(pair.class_names),
        "null": [_plain(pair.null_slope), _plain(pair.r), _plain(pair.r_null)],
        "maps": _maps(run, test),
    }
    return values, predicted == slices.label[drawn]


def _maps(run: Run, test: NDArray[np.intp]) -> dict[str, Any] | None:
    """Return what each position adds to the margin of two classes, of the recorded slices."""
    if len(run.class_names) != 2:
        return None
    try:
        positions, _, rows = analyse_contributions(run)
    except (InputError, KeyError):
        return None
    drawn = np.isin(rows, test)
    positions, rows = positions[drawn], rows[drawn]
    largest = float(np.abs(positions).max(initial=0)) or 1.0
    scaled = np.round(positions / largest * 127).astype(np.int8)
    return {
        "shape": list(positions.shape[1:]),
        "row": _integers(np.searchsorted(test, rows)),
        "values": b64encode(scaled.tobytes()).decode(),
    }


def _shown(
    rows: NDArray[np.intp],
    wrong: NDArray[np.bool_],
    pixels: NDArray[np.uint8] | None,
    thumbnails: str,
) -> NDArray[np.intp]:
    """Return the places of the slices with a thumbnail, errors first, in random order each."""
    if thumbnails == "none" or pixels is None or rows.max(initial=-1) >= len(pixels):
        return np.zeros(0, dtype=np.intp)
    order = np.random.default_rng(0).permutation(len(rows))
    places = order[np.argsort(~wrong[order], kind="stable")]
    return places[: int(wrong.sum()) if thumbnails == "errors" else len(places)][:MOST_THUMBNAILS]


def _sprite(
    pixels: NDArray[np.uint8] | None, rows: NDArray[np.intp], shown: NDArray[np.intp]
) -> tuple[dict[str, Any] | None, NDArray[np.intp]]:
    """Return one picture of thumbnails, in lines, and which slice stands at each place.

    Of those to be shown the first that have room in `SPRITE_BYTES`.
    """
    if pixels is None or not len(shown):
        return None, shown
    picture = _webp(draw_thumbnails(pixels, rows[np.sort(shown)]))
    if len(picture) > SPRITE_BYTES:
        shown = shown[: max(1, int(len(shown) * SPRITE_BYTES / len(picture)))]
        picture = _webp(draw_thumbnails(pixels, rows[np.sort(shown)]))
    shown = np.sort(shown)
    return {
        "side": SIDE,
        "across": min(ACROSS, len(shown)),
        "place": _integers(shown),
        "source": "data:image/webp;base64," + b64encode(picture).decode(),
    }, shown


def _webp(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "WEBP", quality=45, method=2)
    return stream.getvalue()


def draw_thumbnails(pixels: NDArray[np.uint8], rows: NDArray[np.intp]) -> Image.Image:
    """Draw slices of (N, H, W), `ACROSS` in a line, each in a square of `SIDE`; row −1 is blank."""
    across = min(ACROSS, len(rows))
    lines = -(-len(rows) // across)
    sheet = Image.new("L", (across * SIDE, lines * SIDE))
    for k, row in enumerate(rows):
        if row < 0:
            continue
        small = Image.fromarray(np.asarray(pixels[row]))
        small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        left, top = (k % across) * SIDE, (k // across) * SIDE
        sheet.paste(small, (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2))
    return sheet


def _reals(values: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _integers(values: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(values, dtype="<i4").tobytes()).decode()


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


STILL: Final = 170  # pixels of a still picture
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a7d00", "#56b4e9", "#7a3db8")
INK: Final = "#333a44"
GREY: Final = "#c4c9d0"


def logit_panels(runs: Sequence[Run]) -> Multiples:
    """Return Fig. 2: where each network puts its test slices."""
    spaces = {run.name: all_slices(run) for run in runs}
    low, high = _limits([space.logits for space in spaces.values()])

    def panel(run: Run) -> Panel:
        points, labels = spaces[run.name].logits, spaces[run.name].label
        accuracy = run.score("test", "slice_accuracy")
        below = say(
            "{}% of {} correct",
            number(accuracy, run.name, "test_slice_accuracy", "percent"),
            number(len(points), run.name, "test_slices", "count"),
        )
        still = _still(points, [COLOURS[k % len(COLOURS)] for k in labels], low, high)
        alt = f"Logits of {len(points)} test slices, {run.setting.title}, {run.setting.network}."
        return Panel(run.name, run.setting.title, below, still, alt)

    axes = "by its two logits"
    if len(runs[0].class_names) > 2:
        axes = "by the logit of its class and the largest of the others"
    names = [f"{'●▲■'[k % 3]} {name}" for k, name in enumerate(map(str, runs[0].class_names))]
    caption = (
        f"Each mark is one test slice, placed {axes}: {', '.join(names)}; hollow marks are "
        "misclassified. Slices of one subject lie close together: count subjects before being "
        "impressed by marks."
    )
    return Multiples("fig2", _by_network(runs, panel), caption)


def _by_network(
    runs: Sequence[Run], panel: Callable[[Run], Panel]
) -> list[tuple[str, list[Panel]]]:
    groups = group_by(runs, lambda run: run.setting.network)
    return [(network, [panel(run) for run in group]) for network, group in groups]


def weight_panels(runs: Sequence[Run], heads: Mapping[str, HeadAnalysis]) -> Multiples:
    """Return Fig. 3: the weights to two classes, beside the line that training forces."""
    pairs = {run.name: heads[run.name].pairs[0] for run in runs}
    points = {name: np.stack([pair.x, pair.y], axis=1) for name, pair in pairs.items()}
    low, high = _limits(list(points.values()))

    def panel(run: Run) -> Panel:
        pair, values = pairs[run.name], points[run.name]
        still = _still(values, [COLOURS[0]] * len(values), low, high, pair.null_slope)
        alt = f"Weights of {pair.feature_count} features, {run.setting.title}."
        return Panel(run.name, run.setting.title, _beside_null(pair, run), still, alt)

    first, second = next(iter(pairs.values())).class_names
    caption = (
        f"Each dot is one feature, placed by its weights to {first} and to {second}; the dashed "
        "line is what training forces on the head (the null). A falling line is no finding: only "
        "what departs from it is."
    )
    return Multiples("fig3", _by_network(runs, panel), caption)


def _beside_null(pair: PairAnalysis, run: Run) -> Markup:
    def value(name: str, form: str) -> Markup:
        return number(getattr(pair, name), run.name, f"fig3.{name}", form, pair.pair)

    return say(
        "r {}, {}; moved {}×{}",
        value("r", "correlation"),
        "no null" if pair.no_null else say("null {}", value("r_null", "correlation")),
        value("displacement_ratio", "significant"),
        "; departs" if pair.departs else "",
    )


def _limits(parts: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate([part.ravel() for part in parts])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    pad = 0.05 * (high - low) or 1.0
    return low - pad, high + pad


def _still(
    points: NDArray[np.float64],
    colours: Sequence[str],
    low: float,
    high: float,
    slope: float = 1.0,
) -> str:
    """Draw points (n, 2) on a square from low to high, with a line of that slope through 0."""
    image = Image.new("RGB", (STILL, STILL), "white")
    pen = ImageDraw.Draw(image)
    places = np.nan_to_num((points - low) / (high - low) * STILL)
    pen.rectangle((0, 0, STILL - 1, STILL - 1), outline=GREY)
    order = np.random.default_rng(0).permutation(len(places))  # so that no class covers another
    for k in order[:MOST_DRAWN]:
        x, y = places[k, 0], STILL - places[k, 1]
        pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colours[k])
    if np.isfinite(slope):
        left, right = ((high - slope * x) / (high - low) * STILL for x in (low, high))
        pen.line((0.0, left, STILL, right), fill=INK)
    return png_source(image, 8)
