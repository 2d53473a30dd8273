"""The chapter on the final layer: its rows against each other, beside what training forces."""

from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup

from headscope.analysis import HeadAnalysis, PairAnalysis, PolynomialFit
from headscope.analysis.final_layer.null import ROUNDING
from headscope.analysis.final_layer.pairs import MATERIAL
from headscope.record import Run
from headscope.reporting.blocks import Block, Box, Chapter, Fold, TableBlock, Text
from headscope.reporting.chapters.rows import row_blocks
from headscope.reporting.chapters.runs import spread
from headscope.reporting.forced import forced
from headscope.reporting.numbers import CONFIDENCE, ends_of, number, numbers, say
from headscope.tables import Cell, Column, Table
from headscope.text import significant

STEPS: Final = (
    Markup(
        "The gradients of all rows of weights sum to zero, so training leaves the <em>sum</em> of "
        "the rows as the initialisation made it, but for the known shrinkage by weight decay. "
        "Only their <em>difference</em> is learned."
    ),
    "Write s for the sum and d for the difference of two rows. If the two are unrelated, their "
    "correlation is r = (var s − var d) / (var s + var d): near 0 before training, and of two "
    "classes towards −1 the longer the head trains, on any data whatever.",
    Markup(
        "So r near −1 is no finding. The <em>null prediction</em> takes s from the recorded "
        "initial head and the size of d from the trained one; only what departs from it, the "
        "<em>residual</em>, is worth interpreting. The honest score is the <em>displacement "
        "ratio</em> √(var d / var s): how far training moved the head, in units of its "
        "initialisation. It is about 1 before training."
    ),
)
FITS: Final = {
    "residual_norm": Column("Residual norm", "", "significant"),
    "r2": Column("R²", "", "correlation"),
    "adjusted_r2": Column("Adjusted R²", "", "correlation"),
    "bic": Column("BIC", "", "points"),
    "f": Column("F", "", "significant"),
    "shuffled_f_median": Column("F of shuffles, median", "", "significant"),
    "shuffled_f_high": Column(CONFIDENCE, "", "significant"),
    "shuffled_p": Column("p of shuffles", "", "probability"),
}

Fact = tuple[Cell, Markup | Cell]  # a name with a note, and a value


def weights_chapter(runs: Sequence[Run], heads: Mapping[str, HeadAnalysis]) -> Chapter:
    """Show each pair of rows of each final layer, `heads` by the name of the run."""
    sentence = forced({run.name: heads[run.name].pairs for run in runs})
    pairs = [pair for head in heads.values() for pair in head.pairs]
    blocks: list[Block] = [
        Text(*filter(None, [sentence])),
        Text(
            "Each dot is one feature, placed by its weight to either class. The longer a head "
            "of two classes trains, the more the cloud draws into a falling line, which has "
            "been read as what a network learned of the classes. It follows from the training "
            "rule:"
        ),
        Text(*STEPS, style="steps"),
        Text(*dict.fromkeys(pair.no_null for pair in pairs if pair.no_null)),
        Text(*_judgement(heads[runs[0].name])),
        *(_run_box(run, heads[run.name]) for run in runs),
        *row_blocks(runs, heads),
    ]
    r = spread([heads[run.name].pairs[0].r for run in runs], "correlation")
    departing = sum(any(pair.departs for pair in heads[run.name].pairs) for run in runs)
    depart = f"{departing or 'none'} of {len(runs)} heads depart{'s' if departing < 2 else ''}"
    if len(runs) == 1:
        depart = "the head departs" if departing else "the head does not depart"
    result = f"r {r}; {depart} from what training forces"
    return Chapter("weights", "The final layer in numbers", blocks, result)


def _judgement(head: HeadAnalysis) -> list[Markup]:
    """Say when a head departs from the null, and of several classes when two are related."""
    K = head.pairs[0].class_count
    drift = say(
        "A head <em>departs</em> from the null if its row sum drifted as training cannot move it "
        "(by more than rounding: 0.001 of the standard deviation of the predicted row sum, or {} "
        "of the largest weights that cancel in it). ",
        significant(ROUNDING, 1).removeprefix("1 × "),
    )
    if K == 2:
        return [
            drift + "Of two classes nothing else can depart: while the sum is conserved the "
            "residual is at most about 0.19 corr(s, d)², and s is drawn before training. It shares "
            "the sign of r, so that its interval ends at 0 and does not pass it."
        ]
    shown = Markup("Every pair of classes is shown.")
    if len(head.pairs) == 1:
        shown = Markup(
            "Of so many classes the first two are shown; <code>headscope head --pairs</code> asks "
            "for others."
        )
    return [
        drift + f"Of more than two classes a head also departs if its residual exceeds {MATERIAL}, "
        f"and 1.3 over the number of features, while the {CONFIDENCE} interval of the residual, "
        "widened for all pairs, excludes 0.",
        say(
            "Here are {K} classes: the mean of all rows takes the part of s, and each row's "
            "distance from that mean the part of d. Rows of unrelated classes go towards −1/{rest} "
            "the longer the head trains, and two classes that are near each other may end above "
            "it. How far chance carries them depends on the features, of which a few directions "
            "carry most: the <em>learned part of r</em> stands beside that of heads retrained on "
            "labels permuted by subject, by the run's own recipe. p is adjusted for all pairs of "
            "the head. No relation is claimed where such heads cannot be had. {shown}",
            K=K,
            rest=K - 1,
            shown=shown,
        ),
    ]


def _run_box(run: Run, head: HeadAnalysis) -> Box:
    """Show the pairs of a run's final layer, all but the first on demand."""
    first, *others = [_pair_blocks(pair, run) for pair in head.pairs]
    title = f"The other {len(others)} pairs of classes"
    rest = [Fold(title, [block for pair in others for block in pair])] if others else []
    return Box("run", [*first, *rest], run.setting.title, run.setting.network)


def _pair_blocks(pair: PairAnalysis, run: Run) -> list[Block]:
    notes = list(pair.notes)
    if pair.withheld and pair.class_count > 2:
        notes.append(pair.withheld)
    title = f"{pair.class_names[0]} against {pair.class_names[1]}; weights have no unit."
    facts = TableBlock("pairs", Table(title, ("", ""), _facts(pair, run.name), notes))
    return [facts, TableBlock("fits", _fits(pair, run.name))] if pair.fits else [facts]


def _facts(pair: PairAnalysis, run: str) -> list[Fact]:

    def fact(name: str, attribute: str, form: str = "significant", note: str = "") -> Fact:
        value = getattr(pair, attribute)
        cell = Cell(value, format=form, run=run, quantity=attribute, pair=pair.pair)
        return Cell(name, detail=note), cell

    def ends(name: str, attribute: str, form: str, note: str) -> Fact:
        values = (getattr(pair, f"{attribute}_{end}") for end in ("low", "high"))
        shown = ends_of(values, run, attribute, form, pair.pair)
        return Cell(name, detail=note), say("{} to {}", *shown)

    retrained = number(pair.retrained_heads, run, "retrained_heads", "count", pair.pair)
    permuted = [
        fact("Mean on permuted labels", "r_unrelated", "correlation"),
        ends(f"{CONFIDENCE} of it on permuted labels", "r_unrelated", "correlation",
             say("{} heads retrained", retrained)),
        fact("p over all pairs", "related_p", "probability"),
    ]  # fmt: skip
    learned = fact("Learned part of r", "r_learned", "correlation", "rows less the mean row")
    null = pair.null_source
    beside_null = [
        fact("Null prediction of r", "r_null", "correlation",
             f"row sum from the {null}" if null == "initial head" else null),
        fact("Residual, observed − null", "residual"),
        ends(f"Its {CONFIDENCE} interval", "residual", "significant", "bootstrap over features"),
        fact("r by conservation alone", "r_conserved", "correlation",
             "predicted row sum, learned part as it is"),
    ]  # fmt: skip
    drift = [
        fact("Drift of the row sum", "row_sum_drift",
             note="beyond weight decay, largest of all features"),
        fact("Shrinkage by weight decay", "shrinkage", "factor",
             f"factor on the row sum{', estimated from it' if pair.shrinkage_estimated else ''}"),
    ]  # fmt: skip
    return [
        fact("Features", "feature_count", "count"),
        fact("Correlation r, observed", "r", "correlation"),
        fact("Rank correlation, Spearman", "spearman", "correlation"),
        fact("Slope, least squares", "slope", "correlation"),
        fact("Slope, orthogonal", "orthogonal_slope", "correlation"),
        *([] if pair.no_null else beside_null),
        *([learned] if pair.class_count > 2 else []),
        *([] if pair.withheld or pair.class_count == 2 else permuted),
        fact("Displacement ratio", "displacement_ratio", note=(
             "nothing is conserved, as of a head that started at zero"
             if pair.conserves_nothing else "")),
        *([] if pair.no_null else drift),
        fact("Variance of the sum s", "sum_variance"),
        fact("Variance of the difference d", "difference_variance"),
        fact("Covariance of s and d", "sum_difference_covariance"),
    ]  # fmt: skip


def _fits(pair: PairAnalysis, run: str) -> Table:
    first = pair.fits[0]
    mu, sigma, shuffles = (
        number(getattr(first, name), run, name, form, pair.pair)
        for name, form in (("mu", "significant"), ("sigma", "significant"), ("shuffles", "count"))
    )
    caption = say(
        "Polynomial fits of the weight to {} (y) on the weight to {} (x), centred and scaled as in "
        "the paper: z = (x − μ)/σ with μ = {} and σ = {}. F tests a degree against the one below "
        "it.",
        *(*pair.class_names[::-1], mu, sigma),
    )
    beside = say(
        " Training ties the rows, so F has not the distribution of independent features: it "
        "stands beside its median and {} quantile over {} shuffles of what training conserves "
        "against what was learned, and p is the share of shuffles that reach it.",
        *(CONFIDENCE, shuffles),
    )
    caption = caption if pair.no_null else caption + beside
    names = [name for name in FITS if first.shuffles or "shuffled" not in name]
    rows = [_fit(fit, pair.pair, run, names) for fit in pair.fits]
    return Table(caption, ("Degree", "Fit", *(FITS[name] for name in names)), rows)


def _fit(fit: PolynomialFit, pair: tuple[int, int], run: str, names: Sequence[str]) -> list[object]:
    key, text = f"fit{fit.degree}", fit.polynomial
    for sign in "−+":
        text = text.replace(f"{sign} ", f"{sign}\u00a0")
    equation = numbers(fit.coefficients, run, f"{key}.coefficients", text, pair)
    return [
        fit.degree,
        say('<div class="equation">{}</div>', equation),
        *(Cell(getattr(fit, name), run=run, quantity=f"{key}.{name}", pair=pair) for name in names),
    ]
