"""What bench/reproduction.py measured, as the tables and verdicts of docs/reproduction.md.

All numbers of the page come from bench/results/reproduction/*.tsv and stand between markers; the
verdicts follow from them by the rules below.
"""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pandas as pd

from headscope.files import read_table, write_text
from headscope.tables import Cell, Table
from headscope.text import percent

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "reproduction"
SETTINGS = ROOT / "bench" / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"
IMAGES = ROOT / "docs" / "images"
FIG2_WORDS = (
    "Fig. 2: logits of the test slices, (a) frozen and (b) fine-tuned EfficientNet-Lite0 at 96 "
    "pixels, GoogLeNet from scratch at 64 pixels for (c) 30 and (d) 60 epochs"
)
FIG3_WORDS = (
    "Fig. 3: weights of the final layer of networks from scratch at the paper's rate, and last of "
    "a frozen one whose head was trained at ten times that, for 100 epochs"
)
MARKED = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
AGE, SEX, OASIS = "nichart_t1, age above 80", "nichart_t1, sex", "OASIS-2, AD or NC"
MARGIN = 0.05  # of slice accuracy: what 'matches' allows, several times the paper's differences
FEWEST = 2  # networks that a verdict rests on
MOVED = 0.1  # of the spread of the logits: a decision that location takes part in
HOLDS, LEAKS = "holds", "holds only with leakage"
RULE, FAILS = "a consequence of the training rule", "does not hold"
OPEN, NOT_RUN = "not shown", "not yet run"
VERDICTS = (HOLDS, LEAKS, RULE, FAILS, OPEN, NOT_RUN)


@dataclass(frozen=True)
class Experiment:
    """An experiment of the page: its cohort, the side of its slices, the settings of its runs."""

    cohort: str
    size: int
    files: tuple[str, ...]
    epochs: str = ""

    @property
    def title(self):
        """What tells it apart in a table."""
        return f"{self.cohort}, {self.size} px{self.epochs}"

    @property
    def runs(self):
        """How many runs it is to have."""
        tables = [
            tomllib.loads((SETTINGS / f"{name}.toml").read_text("utf-8")) for name in self.files
        ]
        return sum(len(it["rows"]) * len(it["splits"]) * len(it["seeds"]) for it in tables)


FINETUNE = ("finetune", "finetune-alexnet")
EXPERIMENTS = {
    "nichart-frozen": Experiment(AGE, 224, ("frozen", "frozen-vgg")),
    "nichart-finetune": Experiment(AGE, 96, (*FINETUNE, "scratch-96", "scratch-96-resnet50")),
    "nichart-few": Experiment(AGE, 64, ("scratch-few", "vgg19-few"), ", few epochs"),
    "nichart-many": Experiment(AGE, 64, ("scratch-many", "vgg19-many"), ", many epochs"),
    "nichart-sex-frozen": Experiment(SEX, 224, ("frozen",)),
    "oasis2-frozen": Experiment(OASIS, 224, ("frozen", "frozen-vgg")),
    "oasis2-finetune": Experiment(OASIS, 96, FINETUNE),
}
FROZEN, FINE, FEW, MANY = "frozen", "fine-tuned", "scratch, few", "scratch, many"
PAPER = (  # Table 2: network, regime, epochs, accuracy in training, validation and test, time
    ("ResNet-101", FROZEN, 20, 100, 92.6, 93.2, "4:04"),
    ("ResNet-101", FINE, 20, 100, 97.2, 98.1, "7:48"),
    ("ResNet-101", FEW, 20, 100, 95.8, 96.5, "8:29"),
    ("ResNet-101", MANY, 50, 100, 97.8, 98.2, "22:48"),
    ("GoogLeNet", FROZEN, 30, 82, 76.5, 78.6, "2:12"),
    ("GoogLeNet", FINE, 30, 100, 96.7, 97.2, "3:21"),
    ("GoogLeNet", FEW, 30, 99, 96.4, 96.8, "3:10"),
    ("GoogLeNet", MANY, 60, 100, 97.6, 97.6, "6:27"),
    ("VGG-19", FROZEN, 30, 80, 79.46, 76.59, "2:24"),
    ("VGG-19", FINE, 30, 100, 98.21, 99.12, "3:55"),
    ("VGG-19", FEW, 30, 88, 83.63, 88.69, "3:52"),
    ("VGG-19", MANY, 60, 99, 96.43, 97.82, "7:46"),
)
STANDS = {  # for the networks of the paper: pretrained, and from scratch
    "ResNet-101": (("resnet50_v1",), "resnet101"),
    "GoogLeNet": (("squeezenet1_1", "tf_efficientnet_lite0"), "googlenet"),
    "VGG-19": (("vgg16", "alexnet"), "vgg19"),
}
PLACES = {  # regime: experiment, name of the row
    FROZEN: ("nichart-frozen", "frozen"),
    FINE: ("nichart-finetune", "finetune"),
    FEW: ("nichart-few", "scratch"),
    MANY: ("nichart-many", "scratch"),
}


def read_results():
    """Return the tables that were measured, by the names of their files."""
    results = {path.stem: read_table(path) for path in sorted(RESULTS.glob("*.tsv"))}
    if "measures" in results:
        lost = [_compares_constant(row, results) for row in results["measures"].to_dict("records")]
        results["measures"].loc[lost, ["value", "low", "high"]] = nan
    return results


def _compares_constant(row, results):
    """Whether a difference is of a network that predicts one class for all test slices."""
    names = row["compared"].split(" less ")
    if row["claim"] not in ("better", "matches") or row["experiment"] not in results:
        return False
    table = results[row["experiment"]]
    mine = (table["architecture"] == row["architecture"]) & (table["split"] == row["split"])
    return bool(table[mine & table["name"].isin(names)]["one_class_runs"].any())


# The rules of the verdicts


def agreement(rows, split, null, sign):
    """Say whether rows agree with a claim under one split: yes, no, open, or '' without rows.

    A row agrees where its interval is beyond `null` on the side of `sign`, and contradicts where it
    is beyond on the other. yes: more than half agree and none contradicts; no: more than half
    contradict; one network alone decides nothing. Undefined values, as of a network that predicts
    one class for all, do not count.
    """
    rows = rows[rows["split"] == split] if len(rows) else rows
    if not len(rows):
        return ""
    rows = rows[rows["value"].notna()]
    if len(rows) < FEWEST:
        return "open"
    above, below = (rows["low"] > null).sum(), (rows["high"] < null).sum()
    agree, contradict = (above, below) if sign > 0 else (below, above)
    if agree > len(rows) / 2 and not contradict:
        return "yes"
    return "no" if contradict > len(rows) / 2 else "open"


def judge(main, control):
    """Return the verdict from the agreement under both splits: of the claim, and of its control.

    control asks whether the claim outlives what the training rule alone would do.
    """
    if not any(main.values()):
        return NOT_RUN
    for split, verdict in (("subject", HOLDS), ("slice", LEAKS)):
        if main[split] == "yes":
            return verdict if control[split] in ("yes", "") else RULE
    return FAILS if "no" in main.values() else OPEN


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, its measure, and how rows of measures.tsv decide about it.

    main, control: values of `compared`; null and sign as of `agreement`.
    """

    key: str
    words: str
    measure: str
    main: tuple[str, ...]
    control: tuple[str, ...] = ()
    null: float = 0.0
    sign: int = 1
    form: str = "signed"
    scale: float = 100.0
    why: str = ""

    def rows(self, measures, names=None):
        """Return its rows, or those of some values of `compared`."""
        if measures is None:
            return pd.DataFrame()
        rows = measures[measures["claim"] == self.key]
        return rows if names is None else rows[rows["compared"].isin(names)]

    def agreements(self, measures, names):
        """Return the agreement under both splits."""
        rows = self.rows(measures, names) if names else pd.DataFrame()
        return {s: agreement(rows, s, self.null, self.sign) for s in ("slice", "subject")}

    def verdict(self, measures):
        """Return one of VERDICTS."""
        return judge(self.agreements(measures, self.main), self.agreements(measures, self.control))


class Line(Claim):
    """Fig. 3's line: where it falls, whether a head departs from what training forces on it."""

    def verdict(self, measures):
        """Return one of VERDICTS."""
        rows = self.rows(measures)
        if not len(rows):
            return NOT_RUN
        r = rows[rows["compared"].str.endswith(": r")]
        if not (r["value"] < 0).any():
            return FAILS
        return HOLDS if r["departs"].sum() else RULE


class Location(Claim):
    """Location is lost where positions are averaged, whatever the width of the final layer."""

    def verdict(self, measures):
        """Return one of VERDICTS."""
        rows = self.rows(measures)
        if not len(rows):
            return NOT_RUN
        rows = rows[rows["compared"].str.endswith("decision") & rows["value"].notna()]
        flattens = rows[rows["averages"] == 0]
        if not len(flattens):
            return NOT_RUN
        if flattens["architecture"].nunique() < FEWEST:
            return OPEN
        return FAILS if (flattens["value"] > MOVED).mean() > 0.5 else HOLDS


CLAIMS = (
    Claim(
        "better", "Fine-tuned beats frozen.",
        "Slice accuracy of the fine-tuned network less that of the frozen one, over the same test "
        "slices (points); intervals over subjects.",
        ("finetune less frozen",), ("finetune less frozen-long",),
        why="The control: the same frozen features, their head trained for longer (`frozen-long`).",
    ),
    Claim(
        "matches", "Scratch with enough epochs matches fine-tuned.",
        "Slice accuracy of scratch (the many epochs) less fine-tuned, over the same test slices "
        f"(points). It matches where the interval is above −{100 * MARGIN:.0f} points.",
        ("scratch less finetune",), null=-MARGIN,
    ),
    Claim(
        "dense", "Frozen logits are sparse, fine-tuned ones dense.",
        "Dispersion of the test logits within classes, fine-tuned over frozen: below 1 is dense.",
        ("finetune over frozen",), ("finetune over frozen-long",), null=1.0, sign=-1,
        form="significant", scale=1.0,
        why="The control is the frozen head that was trained for longer: a longer training "
        "spreads logits by itself.",
    ),
    Claim(
        "range", "Weights converge to a smaller range.",
        "Standard deviation of the weights of the final layer, over that of the frozen network.",
        ("finetune over frozen", "scratch over frozen"), ("trained over its start",), null=1.0,
        sign=-1, form="significant", scale=1.0,
        why="The control is the same head before training: weights that converge to a smaller "
        "range would be below 1 there too.",
    ),
    Claim(
        "spread", "Few epochs leave the features condensed, many spread them.",
        "Dispersion of the test logits within classes, many epochs over few: above 1 is spread.",
        ("dispersion, many over few",), ("Fisher ratio, many over few",), null=1.0,
        form="significant", scale=1.0,
        why="The control is the Fisher ratio, which has no scale: more epochs enlarge logits "
        "whatever they say.",
    ),
    Line(
        "line", "The weights to the two classes lie on a falling line (Fig. 3).",
        "Correlation r of the two class rows, what is left of it beside the r that training "
        "forces on any data, and the displacement ratio: how far training moved the head (1 "
        "untrained).",
        (), form="correlation", scale=1.0,
    ),
    Location(
        "location", "Wide input to two outputs loses spatial information.",
        "Change of the decision when positions of the last feature maps are shuffled, in units of "
        "the spread of the logits: 0 where location counts for nothing, about √2 where it is all. "
        "Then slice accuracy of a linear probe on maps as they are less that on their means "
        "(± 2 sd over 5 dealings of the folds).",
        (), form="significant", scale=1.0,
    ),
)  # fmt: skip


# The tables


def _bounded(row, name, scale=100.0):
    if row is None:
        return Cell("not run")
    low, high = (row.get(f"{name}_{end}", nan) for end in ("low", "high"))
    if pd.isna(low):
        low, high = (row.get(f"{name}_wilson_{end}", nan) for end in ("low", "high"))
    return Cell(scale * row[name], scale * low, scale * high, format="points")


def _setting(results, experiment, architecture, name, split):
    """Return a row of an experiment's table, or None where it has not finished."""
    table = results.get(experiment)
    if table is None:
        return None
    rows = table[(table["architecture"] == architecture) & (table["name"] == name)
                 & (table["split"] == split)]  # fmt: skip
    return None if rows.empty else rows.iloc[0].to_dict()


def _three(row):
    """Return training, validation and test accuracy, the last with its interval."""
    if row is None:
        return "not run"
    first = " / ".join(percent(row[f"{s}_slice_accuracy"]) for s in ("train", "val"))
    return f"{first} / {_bounded(row, 'test_slice_accuracy').text()}"


def table2(results):
    """Return our rows beside those of the paper."""
    rows = []
    for network, regime, epochs, *accuracies, seconds in PAPER:
        experiment, name = PLACES[regime]
        pretrained, scratch = STANDS[network]
        for architecture in pretrained if regime in (FROZEN, FINE) else (scratch,):
            mixed, apart = (
                _setting(results, experiment, architecture, name, split)
                for split in ("slice", "subject")
            )
            size = EXPERIMENTS[experiment].size
            done = mixed is not None and int(mixed["epochs"]) >= epochs
            rows.append([
                f"{network}, {regime} ({epochs})",
                f"{accuracies[0]} / {accuracies[1]} / {accuracies[2]}",
                f"{architecture}, {size} px",
                _three(mixed if done else None),
                _three(apart if done else None),
                _bounded(apart if done else None, "test_subject_accuracy"),
                Cell(mixed["train_seconds"], format="time") if done else "",
                seconds,
            ])  # fmt: skip
    columns = (
        "Paper: network, regime (epochs)", "Paper: train / val / test (%)", "Ours",
        "Slices mixed: train / val / test (%)", "Subjects apart: train / val / test (%)",
        "Subjects apart: test subjects (%)", "Time (min:sec)", "Paper's",
    )  # fmt: skip
    return Table("Table 2", columns, rows).to_markdown()


def leakage(results):
    """Return every network under both splits, the gap, and the siblings of test slices."""
    rows = []
    measured = results.get("leakage", pd.DataFrame())
    for row in measured.to_dict("records"):
        experiment = EXPERIMENTS[row["experiment"]]
        mixed, apart = (
            _setting(results, row["experiment"], row["architecture"], row["name"], split)
            for split in ("slice", "subject")
        )
        if mixed is None or apart is None:
            continue
        gap = Cell(100 * row["gap"], 100 * row["low"], 100 * row["high"], format="signed")
        rows.append([
            experiment.title, f"{row['architecture']}, {row['name']}",
            f"{mixed['epochs']}", str(row["seeds"]), _bounded(mixed, "test_slice_accuracy"),
            _bounded(apart, "test_slice_accuracy"), gap,
            *(Cell(100 * row[part], format="points") for part in ("siblings", "nearest")),
        ])  # fmt: skip
    columns = (
        "Cohort", "Network, regime", "Epochs", "Seeds", "Slices mixed (%)", "Subjects apart (%)",
        "Gap (points)", "Test slices with a sibling in training (%)",
        "… whose nearest training slice is one (%)",
    )  # fmt: skip
    return Table("Leakage", columns, rows).to_markdown()


def verdicts(results):
    """Return the claims, each with its verdict and how many intervals agree under both splits."""
    measures = results.get("measures")
    rows = []
    for number, claim in enumerate(CLAIMS, 1):
        tallies = (_tally(claim, measures, split) for split in ("slice", "subject"))
        rows.append([f"{number}. {claim.words}", claim.verdict(measures), *tallies])
    columns = ("Claim of the paper", "Verdict", "Slices mixed", "Subjects apart")
    return Table("Verdicts", columns, rows).to_markdown()


def _tally(claim, measures, split):
    rows = claim.rows(measures)
    rows = rows[rows["split"] == split] if len(rows) else rows
    if not len(rows):
        return "not run"
    if isinstance(claim, Line):
        r = rows[rows["compared"].str.endswith(": r")]
        return f"r < 0 in {(r['value'] < 0).sum()} of {len(r)}, {int(r['departs'].sum())} depart"
    if isinstance(claim, Location):
        rows = rows[rows["compared"].str.endswith("decision") & rows["value"].notna()]
        parts = (
            f"{(group['value'] > MOVED).sum()} of {len(group)} that {words}"
            for words, group in (("flatten", rows[rows["averages"] == 0]),
                                 ("average", rows[rows["averages"] == 1]))
        )  # fmt: skip
        return f"location counts in {', '.join(parts)}"
    return "; ".join(
        f"{words} {_counted(claim, rows, names)}"
        for words, names in (("claim", claim.main), ("control", claim.control))
        if rows["compared"].isin(names).any()
    )


def _counted(claim, rows, names):
    rows = rows[rows["compared"].isin(names) & rows["value"].notna()]
    above, below = (rows["low"] > claim.null).sum(), (rows["high"] < claim.null).sum()
    agree, contradict = (above, below) if claim.sign > 0 else (below, above)
    return f"{agree} of {len(rows)} agree, {contradict} contradict"


def claim_tables(results):
    """Return the measures of every claim."""
    parts = []
    for number, claim in enumerate(CLAIMS, 1):
        rows = claim.rows(results.get("measures"))
        parts += [
            f"### {number}. {claim.words}",
            " ".join(filter(None, [claim.measure, claim.why])),
        ]
        made = _line_table if isinstance(claim, Line) else _claim_table
        parts.append(made(claim, rows) if len(rows) else "Not yet run.")
    return "\n\n".join(parts)


def _claim_table(claim, rows):
    lines = {}
    for row in rows.to_dict("records"):
        experiment = EXPERIMENTS[row["experiment"]]
        key = experiment.title, row["architecture"], row["compared"]
        probe = "probe" in row["compared"]
        scale, form = (100.0, "signed") if probe else (claim.scale, claim.form)
        low, high = (scale * row[end] for end in ("low", "high"))
        lines.setdefault(key, {})[row["split"]] = Cell(scale * row["value"], low, high, format=form)
    columns = ("Cohort", "Network", "Compared", "Slices mixed", "Subjects apart")
    made = [
        [*key, *(cells.get(split, "not run") for split in ("slice", "subject"))]
        for key, cells in lines.items()
    ]
    return Table(claim.words, columns, made).to_markdown()


def _line_table(claim, rows):
    """Return r, its null and the displacement of every head, under both splits side by side."""
    lines = {}
    for row in rows.to_dict("records"):
        experiment = EXPERIMENTS[row["experiment"]]
        variant, what = row["compared"].split(": ")
        key = experiment.title, row["architecture"], variant
        lines.setdefault(key, {})[what, row["split"]] = row["value"]
    made = []
    for key, values in lines.items():
        cells = []
        for split in ("slice", "subject"):
            r, rest, moved = (
                values.get((what, split), nan)
                for what in ("r", "r less its null", "displacement ratio")
            )
            cells += [Cell(r, format="correlation"), Cell(r - rest, format="correlation")]
            cells.append(Cell(moved, format="significant"))
        made.append([*key, *cells])
    columns = ("Cohort", "Network", "Regime", "Slices mixed: r", "its null", "displacement",
               "Subjects apart: r", "its null", "displacement")  # fmt: skip
    return Table(claim.words, columns, made).to_markdown()


def state(results):
    """Return what has been run of what was planned, and on what."""
    made = results.get("experiments", pd.DataFrame())
    counts = {row["experiment"]: row for row in made.to_dict("records")}
    rows = []
    for name, experiment in EXPERIMENTS.items():
        row = counts.get(name, {"runs": 0, "train_seconds": 0.0})
        rows.append([f"`{name}`", experiment.cohort, experiment.size,
                     f"{row['runs']} of {experiment.runs}",
                     Cell(row["train_seconds"], format="time")])  # fmt: skip
    columns = ("Experiment", "Cohort", "Pixels", "Runs finished", "Training time (min:sec)")
    text = Table("State", columns, rows).to_markdown()
    ran = [row for row in counts.values() if row["runs"]]
    if not ran:
        return text
    one = ran[0]
    names = ("headscope", "torch", "torchvision", "timm", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {one[name]}" for name in names)
    on = f"{one['device']}, {int(one['threads'])} thread; Python {one['python']}, {versions}."
    return f"{text}\n\n{on}"


def rivals(results):
    """Return networks less rivals, and the confounder tests, subjects apart."""
    parts = []
    rows = [
        [EXPERIMENTS[row["experiment"]].cohort, row["network"], row["rival"],
         Cell(100 * row["value"], 100 * row["low"], 100 * row["high"], format="signed"),
         Cell(row["p_holm"], format="probability")]
        for row in results.get("rivals", pd.DataFrame()).to_dict("records")
    ]  # fmt: skip
    columns = (
        "Cohort",
        "Network",
        "Rival",
        "Subject accuracy, less the rival's (points)",
        "p, Holm",
    )
    parts.append(Table("Rivals", columns, rows).to_markdown() if rows else "Not yet run.")
    rows = [
        [EXPERIMENTS[row["experiment"]].cohort, row["network"], row["covariate"],
         *(Cell(row[name], format="probability") for name in ("label_p", "partial_p", "full_p"))]
        for row in results.get("confounders", pd.DataFrame()).to_dict("records")
    ]  # fmt: skip
    columns = ("Cohort", "Network", "Covariate", "Alike in the classes (p)",
               "Read, given the class (p)", "Class predicted, given it (p)")  # fmt: skip
    if rows:
        parts.append(Table("Confounders", columns, rows).to_markdown())
    return "\n\n".join(parts)


def opening(results):
    """Return what a reader of the paper should now believe."""
    return "\n".join([_believe_accuracy(results), _believe_claims(results), _believe_what()])


def _believe_accuracy(results):
    gaps = results.get("leakage", pd.DataFrame())
    rows = []
    for row in gaps.to_dict("records"):
        where = row["experiment"], row["architecture"], row["name"]
        mixed, apart = (_setting(results, *where, split) for split in ("slice", "subject"))
        if EXPERIMENTS[row["experiment"]].cohort == AGE and mixed is not None and apart is not None:
            rows.append((mixed["test_slice_accuracy"], row, mixed, apart))
    if not rows:
        return "The runs have not finished."
    reached = [row for row in rows if row[0] >= 0.95]
    _, row, mixed, apart = max(rows, key=lambda it: it[0])
    best = _bounded(mixed, "test_slice_accuracy").text()
    honest = _bounded(apart, "test_slice_accuracy").text()
    return (
        f"With slices mixed as in the paper, {len(reached)} of {len(rows)} settings reach 95% of "
        f"the test slices of 23 subjects × 30 slices, the best "
        f"({row['architecture']}, {row['name']}) {best}%; the same network under a split by "
        f"subject reaches {honest}%."
    )


def _believe_claims(results):
    numbers = {name: [] for name in VERDICTS}
    for number, claim in enumerate(CLAIMS, 1):
        numbers[claim.verdict(results.get("measures"))].append(str(number))
    parts = [
        f"{name} ({', '.join(numbers[name]) or 'none'})"
        for name in VERDICTS
        if numbers[name] or name == HOLDS
    ]
    return f"The verdicts on its {len(CLAIMS)} claims, by their numbers below: {'; '.join(parts)}."


def _believe_what():
    return (
        "Table 2 of the paper therefore measures in good part how well networks recognise subjects "
        "whose other slices they were trained on, and what Fig. 2 and 3 show of the final layer "
        "has to be set against what training does to it on any data."
    )


def figures(results):
    """Return the figures that have been drawn."""
    named = {"fig2": FIG2_WORDS, "fig3": FIG3_WORDS}
    lines = [
        f"![{words}](images/reproduction-{name}.png)"
        for name, words in named.items()
        if (IMAGES / f"reproduction-{name}.png").is_file()
    ]
    return "\n\n".join(lines) or "Not yet drawn."


SECTIONS: dict[str, Callable[[dict[str, pd.DataFrame]], str]] = {
    "opening": opening,
    "state": state,
    "table2": table2,
    "leakage": leakage,
    "verdicts": verdicts,
    "claims": claim_tables,
    "rivals": rivals,
    "figures": figures,
}


def render(text, results):
    """Return the page with what stands between its markers made again."""

    def made(match):
        return f"{match[1]}\n{SECTIONS[match[2]](results).strip()}\n\n{match[3]}"

    return MARKED.sub(made, text)


def write_page():
    """Render docs/reproduction.md from bench/results/reproduction."""
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8"), read_results()))
