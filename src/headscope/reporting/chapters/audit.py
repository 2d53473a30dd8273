"""What an audit of the slices found: one self-contained page, or a chapter of the report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from headscope.audit_record import (
    COPY_DETAIL,
    FINE_SIDE,
    LEVELS,
    MARGIN,
    MOST_NAMED,
    MOST_TURN,
    REACH,
    SAME_HEAD,
    SIDE,
    STRONG,
    Audit,
    Finding,
    Pair,
    Shortcut,
)
from headscope.files import write_text
from headscope.record.evaluation import SharedHead
from headscope.reporting.blocks import Block, Chapter, Fold, TableBlock, Text, facts_table, refer
from headscope.reporting.numbers import CONFIDENCE, number, say
from headscope.reporting.pictures import png_source
from headscope.reporting.render import Page, render_page
from headscope.tables import Cell, Column, Table
from headscope.text import MISSING, fraction

KINDS: Final = {
    "identical": "identical: every pixel is equal",
    "copy": "copy: turned, compressed or brightened",
    "alike": "one head: likely one subject, scanned twice",
}
ALIKE_PICTURES: Final = "one head: neighbouring slices, or two scans"
SHOWN: Final = 12  # pairs of a report that are open to the eye, with their slices
MOST_SHOWN: Final = 200  # pairs of a report
WIDTH: Final = 120  # pixels of a slice on the page
COLOURS: Final = {"serious": ("bad", "#a8201a"), "notice": ("notice", "#9a3d00"),
                  "fine": ("good", "#00664b"), "not checked": ("", "#56606c")}  # fmt: skip
COUNTS: Final = {
    "tested": "Test {unit}",
    "duplicated": "with a duplicate in training",
    "test_slices": "Test slices",
    "equal_slices": "equal to a training slice",
}
NOTHING: Final = "Nothing serious was found"
SCORES: Final = ("correlation", "deviation", "detail")
PAIRS: Final = (
    *map(Column, ("First", "Second", "What it is", "Subsets")),
    *(Column(name.capitalize(), "", "fraction") for name in SCORES),
)
Slices = NDArray[np.uint8]


def write_audit(page: Path, audit: Audit) -> Path:
    """Write the page of an audit, with the middle slices of its pairs; return its path.

    Pairs whose `pictures` are None are counted and not shown.
    """
    unit = f"{audit.scans} scans ({audit.slices} slices) of {audit.subjects} subjects"
    if audit.unit == "pictures":
        unit = f"{audit.scans} pictures that name no subject"
    classes = ", ".join(f"{count} of class {name}" for name, count in audit.classes.items())
    html = render_page(
        Page(
            name=Path(audit.path).resolve().name,
            kicker="headscope audit",
            title="What could flatter the accuracy of this cohort",
            lede=f"{unit}: {classes}.",
            verdict=_verdict(audit),
            chapters=[
                Chapter("checks", "Checks", [_findings_table(audit, audit.findings)]),
                Chapter("pairs", "Heads seen twice", _page_pairs(audit)),
                Chapter("shortcuts", "Shortcuts", _shortcuts(audit)),
                Chapter("subjects", "Labels and splits", _labels(audit)),
                Chapter("method", "Method", _method(audit)),
            ],
            footer="Made by headscope. A research tool and no medical device.",
        )
    )
    write_text(page, html)
    return page


def audit_chapter(audit: Audit | None, pixels: Slices | None) -> Chapter | None:
    """Return the report's chapter on what the audit of the slices found, or None without one.

    pixels (N, H, W) are the slices that its pairs number, or None where they were deleted.
    """
    if audit is None:
        return None

    def shown(pair: Pair) -> Pair:
        """Return a pair with its pictures, where they are there."""
        if pixels is None or max(pair.rows) >= len(pixels):
            return replace(pair, pictures=None)
        return replace(pair, pictures=pixels[[*pair.rows]])

    splits = [finding for finding in audit.findings if finding.kind == "split"]
    findings, tables = list(audit.findings), []
    if len(splits) > MOST_NAMED:
        place = findings.index(splits[0])
        findings = [finding for finding in findings if finding.kind != "split"]
        findings.insert(place, _over_splits(splits))
    crossing = (s.duplicated or s.equal_slices or any(s.crossing.values()) for s in audit.splits)
    if len(audit.splits) > MOST_NAMED or any(crossing):
        tables.append(_splits_table(audit))
    pairs = [shown(pair) for pair in audit.pairs[:MOST_SHOWN]]
    if pairs:
        tables.append(_pairs_table(audit, pairs[:SHOWN]))
    blocks: list[Block] = [_introduction(audit), _findings_table(audit, findings), *tables]
    if pairs[SHOWN:]:
        rest = _pairs_table(audit, pairs[SHOWN:], SHOWN)
        blocks.append(Fold(f"The other {len(pairs) - SHOWN} pairs", [rest]))
    if audit.notes:
        blocks.append(Fold("Notes of the audit", [Text(*audit.notes, style="list")]))
    return Chapter("audit", "What the audit of the slices found", blocks, _result(audit.findings))


def _result(findings: Sequence[Finding]) -> str:
    """Name what is serious, splits by their number, as there may be many."""
    serious = [finding for finding in findings if finding.level == "serious"]
    names = [finding.check.lower() for finding in serious if finding.kind != "split"]
    splits = sum(finding.kind == "split" for finding in serious)
    checked = sum(finding.kind == "split" for finding in findings)
    if splits:
        names.append("the split" if checked == 1 else f"{splits} of {checked} splits")
    return f"serious: {', '.join(names)}" if names else "nothing serious"


def findings_table(key: str, caption: str, findings: Sequence[Finding]) -> TableBlock:
    """Return findings as a table, their levels in colour."""
    rows = [(row.check, _coloured(row.level, row.level), row.text) for row in findings]
    return TableBlock(key, Table(caption, ("Check", "Outcome", "Result"), rows))


def _coloured(text: str, level: str) -> Markup:
    return say('<span class="{}">{}</span>', COLOURS[level][0], text)


def _verdict(audit: Audit) -> list[Markup]:
    serious = [finding for finding in audit.findings if finding.level == "serious"]
    if not serious:
        return [_coloured(NOTHING, "fine") + " by the checks that could be made."]
    one = len(serious) == 1
    return [
        say(
            "{} An accuracy measured on this cohort as it stands is not to be trusted before {} "
            "cleared up.",
            _coloured(f"{len(serious)} serious finding{'' if one else 's'}.", "serious"),
            "it is" if one else "they are",
        ),
        *(say("{}: {}.", finding.check, finding.text) for finding in serious),
    ]


def _introduction(audit: Audit) -> Text:
    meaning = (
        "Before training, the slices were searched for heads that are there twice, for labels that "
        "contradict each other, and for facts that tell the label without anatomy. "
    )
    serious = sum(finding.level == "serious" for finding in audit.findings)
    if not serious:
        return Text(f"{meaning}{NOTHING}.")
    count = number(serious, "audit", "serious", "count")
    verb = "finding is" if serious == 1 else "findings are"
    return Text(say("{}{} {} serious.", meaning, count, verb))


def _findings_table(audit: Audit, findings: Sequence[Finding]) -> TableBlock:
    caption = (
        "Audit of the slices: what was asked, and the outcome. Areas under the ROC curve of "
        f"shortcuts are over {audit.unit}, cross-validated, with an interval that holds for all of "
        f"them together at {CONFIDENCE}."
    )
    return findings_table("audit", caption, findings)


def _over_splits(findings: Sequence[Finding]) -> Finding:
    """Return the findings of many splits as one, of the gravest level among them."""
    level, all_of = min((finding.level for finding in findings), key=LEVELS.index), len(findings)
    count = sum(finding.level == level for finding in findings)
    table = refer("table-audit-splits")
    text = say("{} in {} of {}; {} has them one by one", level, count, all_of, table)
    return Finding("split", "", f"{all_of} splits", level, text)


def _splits_table(audit: Audit) -> TableBlock:
    """Count for each split what is in training and in test, and the pairs that cross it."""
    rows: list[list[object]] = []
    for split in audit.splits:
        counts = {"shared": len(split.shared)}
        counts |= {name: getattr(split, name) for name in COUNTS}
        counts |= {f"crossing.{kind}": split.crossing[kind] for kind in KINDS}
        rows.append([split.name, *(Cell(count, run=f"audit/{split.name}", quantity=name)
                                   for name, count in counts.items())])  # fmt: skip
    under = "" if audit.unit == "pictures" else " under another id"
    caption = (
        "Duplicates, split by split: how many subjects are in several subsets by their ids, how "
        f"many of the tested {audit.unit} have a duplicate in training{under}, how many test "
        "slices equal a training slice in every pixel, and how many pairs are in several subsets."
    )
    titles = (
        "Subjects in several subsets",
        *(title.format(unit=audit.unit) for title in COUNTS.values()),
        *("Pairs across subsets: identical", "copies", "one head"),
    )
    columns = [Column("Split"), *(Column(title, "", "count") for title in titles)]
    return TableBlock("audit-splits", Table(caption, columns, rows))


def _page_pairs(audit: Audit) -> list[Block]:
    """Show the pairs that have pictures, for the page of an audit."""
    pictures = audit.unit == "pictures"
    if not audit.pairs:
        scans = "pictures" if pictures else "scans of different subjects"
        return [Text(f"No two {scans} show one head.")]
    shown, count = [pair for pair in audit.pairs if pair.pictures is not None], len(audit.pairs)
    first = f", of which the first {len(shown)} are shown" if len(shown) < count else ""
    unit = "pictures" if pictures else "scans"
    text = Text(f"{count} pair{'' if count == 1 else 's'} of {unit}{first}.")
    return [text, _pairs_table(audit, shown)] if shown else [text]


def _pairs_table(audit: Audit, pairs: Sequence[Pair], start: int = 0) -> TableBlock:
    """Show pairs side by side, with their pictures where they have any."""
    rows: list[list[object]] = []
    kinds = KINDS | ({"alike": ALIKE_PICTURES} if audit.unit == "pictures" else {})
    for rank, pair in enumerate(pairs, start=start):
        place = f"audit/pair{rank}"
        scores = [Cell(getattr(pair, name), run=place, quantity=name) for name in SCORES]
        slices, named = pair.pictures, audit.unit == "subjects"
        scans = [scan_of(pair, n, None if slices is None else slices[n], named) for n in (0, 1)]
        rows.append([*scans, kinds[pair.kind], _subsets(pair), *scores])
    caption = (
        "Pairs that show one head. Look at the folds: they are as particular to a subject as a "
        "fingerprint."
    )
    return TableBlock("audit-pairs", Table(caption, PAIRS, rows))


def scan_of(pair: Pair | SharedHead, n: int, pixels: Slices | None, named: bool = True) -> Markup:
    """Return one scan of a pair: its middle slice, its subject, session, label and name."""
    picture, scan, label = Markup(), pair.scans[n], pair.labels[n]
    if pixels is not None:
        picture = say(
            '<img src="{}" alt="Middle slice of {}" width="{}" height="{}">',
            *(png_source(Image.fromarray(np.asarray(pixels))), scan, WIDTH, WIDTH),
        )
    if not named:
        return say("{}{} <small>{}</small>", picture, scan, label)
    return say(
        "{}{}, session {} <small>{}</small><small>{}</small>",
        *(picture, pair.subjects[n], pair.sessions[n], label, scan),
    )


def _subsets(pair: Pair) -> str:
    """Say which splits a pair crosses, and of few splits the subsets of its two scans."""
    crossed = [split for split in pair.subsets if pair.crosses(split)]
    if not crossed:
        return "the same in every split" if pair.subsets else "no split"
    if len(pair.subsets) > MOST_NAMED:
        both = [{*first, *second} for first, second in pair.subsets.values()]
        leaks = sum({"train", "test"} <= subsets for subsets in both)
        return Markup(
            '<span class="bad">apart in {} of {} splits</span>'
            "<small>in training and test in {}</small>"
        ).format(len(crossed), len(pair.subsets), leaks)
    line = '<span class="bad">{}</span><small>{} | {}</small>'
    sides = (map(", ".join, pair.subsets[split]) for split in crossed)
    return Markup().join(say(line, split, *two) for split, two in zip(crossed, sides, strict=True))


def _shortcuts(audit: Audit) -> list[Block]:
    caption = (
        f"Area under the ROC curve over {audit.unit}, with an interval that holds for all families "
        f"together at {CONFIDENCE} (bootstrap, Bonferroni). Raised from a lower bound of "
        f"{0.5 + MARGIN:.2f}; of facts in which anatomy has a part, serious from {STRONG:.2f}."
    )
    rows = [_shortcut(shortcut) for shortcut in audit.shortcuts]
    columns = "Facts", "AUC, 0 to 1", Column("Value", "", "fraction"), "Outcome"
    meaning = (
        "Each family of facts was given alone to a random forest, cross-validated by subject. What "
        "tells the label here, a network can learn instead of anatomy."
    )
    return [Text(meaning), TableBlock("shortcuts", Table(caption, columns, rows))]


def _shortcut(shortcut: Shortcut) -> list[object]:
    facts = Cell(shortcut.family, detail=shortcut.holds)
    if shortcut.auc is None or shortcut.low is None or shortcut.high is None:
        return [facts, MISSING, MISSING, shortcut.note]
    level, outcome = "fine", shortcut.beside_chance()
    if shortcut.raised:
        level, outcome = "notice", "anatomy can explain it"
    if shortcut.serious:
        level, outcome = "serious", "tells the label"
    ends = shortcut.auc, shortcut.low, shortcut.high
    cell = Cell(*ends, run=f"audit/{shortcut.family}", quantity="auc")
    return [facts, _axis(*ends, COLOURS[level][1]), cell, _coloured(outcome, level)]


def _axis(value: float, low: float, high: float, colour: str) -> Markup:
    """Draw an AUC with its interval on an axis from 0 to 1, the line of chance at 0.5."""
    return Markup(
        '<svg viewBox="-6 0 212 18" width="212" height="18" role="img" '
        'aria-label="{}, {} to {}">'
        '<line x1="0" x2="200" y1="9" y2="9" stroke="#e9ebef"/>'
        '<line x1="100" x2="100" y1="1" y2="17" stroke="#56606c" stroke-dasharray="2 2"/>'
        '<line x1="{a:.1f}" x2="{b:.1f}" y1="9" y2="9" stroke="{colour}" stroke-width="3"/>'
        '<circle cx="{c:.1f}" cy="9" r="4.5" fill="{colour}"/></svg>'
    ).format(
        *map(fraction, (value, low, high)), a=200 * low, b=200 * high, c=200 * value, colour=colour
    )


def _labels(audit: Audit) -> list[Block]:
    conflicts: list[Block] = [Text("No subject is known to be in several classes.")]
    if audit.conflicts:
        meaning = (
            "Subjects in several classes; correct if they changed between visits, else one of the "
            "labels is wrong."
        )
        rows = {subject: ", ".join(labels) for subject, labels in audit.conflicts.items()}
        conflicts = [Text(meaning), facts_table(rows)]
    notes: list[Markup | str] = [
        say("<b>{}</b>: {}.", finding.check, finding.text)
        for finding in audit.findings
        if finding.kind == "split" and finding.name
    ]
    return [*conflicts, Text(*(notes or ["There is no split yet."]), style="notes")]


def _method(audit: Audit) -> list[Block]:
    terms = {
        "Correlation": f"correlation of slices at {SIDE}×{SIDE} pixels, brightness and contrast "
        "taken out, at the best depth.",
        "Deviation": "the same less the mean slice of the cohort at that depth, which leaves what "
        "is particular to a head.",
        "Detail": "correlation of the fine structure of up to three slices at "
        f"{FINE_SIDE}×{FINE_SIDE} pixels, laid upon each other within {MOST_TURN}° and {REACH} "
        f"pixels. From {SAME_HEAD:.2f} on two scans count as one head, from {COPY_DETAIL:.2f} on "
        "as copies of one scan.",
    }
    meanings = (say("<b>{}</b>: {}", term, meaning) for term, meaning in terms.items())
    return [Text(*meanings, style="list"), Text(*audit.notes, style="notes")]
