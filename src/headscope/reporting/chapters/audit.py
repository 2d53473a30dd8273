"""What an audit found, for the reader: one self-contained page, or a chapter of the report."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from headscope.audit_record import LEVELS, MOST_NAMED, Audit, Finding, Pair, SplitCheck
from headscope.files import write_text
from headscope.reporting.numbers import number
from headscope.reporting.parts import Cell, Chapter, Folded, Grid, Part, Words
from headscope.reporting.templates import render

KINDS: Final = {
    "identical": "identical: every pixel is equal",
    "copy": "copy: turned, compressed or brightened",
    "alike": "one head: likely one person, scanned twice",
}
SHOWN: Final = 12  # pairs of a report that are open to the eye, with their slices
MOST_SHOWN: Final = 200  # pairs of a report
SIDE: Final = 120  # pixels of a slice in the report
HUES: Final = {"serious": "bad", "fine": "good"}


def write_audit(
    page: Path, facts: Mapping[str, Any], pictures: Sequence[NDArray[np.uint8] | None]
) -> Path:
    """Write the page of an audit; return its path.

    facts are those of `Audit.to_dict`; pictures holds the middle slices (2, H, W) of each of its
    pairs, or None where a pair is listed without.
    """
    shown = [
        {**pair, "pictures": [picture_source(slice_) for slice_ in slices]}
        for pair, slices in zip(facts["pairs"], pictures, strict=True)
        if slices is not None
    ]
    context = dict(facts) | {
        "name": Path(facts["path"]).resolve().name,
        "shown": shown,
        "kinds": KINDS,
        "axis": _axis,
    }
    write_text(page, render("audit.html.j2", context))
    return page


def picture_source(pixels: NDArray[np.uint8]) -> str:
    """Return a slice (H, W) as the data URI of a PNG."""
    stream = BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")


def audit_chapter(audit: Audit | None, pixels: NDArray[np.uint8] | None) -> Chapter | None:
    """Return the report's chapter on what the audit of the slices found, or None without one.

    pixels (N, H, W) are the slices that its pairs number, or None where they were deleted.
    """
    if audit is None:
        return None
    parts: list[Part] = [_introduction(audit), _findings_grid(audit)]
    if len(audit.splits) > MOST_NAMED or any(_crosses(split) for split in audit.splits):
        parts.append(_splits_grid(audit))
    pairs = audit.pairs[:MOST_SHOWN]
    if pairs:
        parts.append(_pairs_grid(audit, pairs[:SHOWN], 0, pixels))
    if pairs[SHOWN:]:
        rest = _pairs_grid(audit, pairs[SHOWN:], SHOWN, pixels)
        parts.append(Folded(f"The other {len(pairs) - SHOWN} pairs", [rest]))
    if audit.notes:
        parts.append(Folded("Notes of the audit", [Words(audit.notes, listed=True)]))
    return Chapter("audit", "What the audit of the slices found", parts)


def _introduction(audit: Audit) -> Words:
    words = (
        "Before training, the slices were searched for heads that are there twice, for labels that "
        "contradict each other, and for facts that tell the label without anatomy. "
    )
    serious = sum(finding.level == "serious" for finding in audit.findings)
    if not serious:
        return Words([words + "Nothing serious was found."])
    count = number(serious, "audit", "serious", "count")
    many = "finding is" if serious == 1 else "findings are"
    return Words([Markup("{}{} {} serious.").format(words, count, many)])


def _findings_grid(audit: Audit) -> Grid:
    findings: Sequence[Finding] = audit.findings
    splits = [finding for finding in findings if finding.kind == "split"]
    if len(splits) > MOST_NAMED:
        first = findings.index(splits[0])
        others = [finding for finding in findings if finding.kind != "split"]
        findings = [*others[:first], _over_splits(splits), *others[first:]]
    rows: list[list[Cell]] = [
        [
            finding.check,
            Markup('<span class="{}">{}</span>').format(HUES.get(finding.level, ""), finding.level),
            finding.text,
        ]
        for finding in findings
    ]
    return Grid(
        Markup(
            "<b>Audit of the slices.</b> What was asked, and what came out. Areas under the ROC "
            "curve of shortcuts are over {}, cross-validated, with an interval that holds for all "
            "of them together at 95%."
        ).format(audit.unit),
        (("Check", ""), ("Outcome", ""), ("Found", "")),
        rows,
        left=3,
    )


def _over_splits(findings: Sequence[Finding]) -> Finding:
    """Return the findings of many splits as one, of the gravest level among them."""
    level = min((finding.level for finding in findings), key=LEVELS.index)
    count = sum(finding.level == level for finding in findings)
    text = f"{level} in {count} of {len(findings)}; the next table has them one by one"
    return Finding("split", "", f"{len(findings)} splits", level, text)


def _crosses(split: SplitCheck) -> bool:
    return bool(split.duplicated or split.equal_slices or any(split.crossing.values()))


def _splits_grid(audit: Audit) -> Grid:
    """Count for each split what is in training and in test, and the pairs that cross it."""
    rows: list[list[Cell]] = []
    for split in audit.splits:
        key = f"audit/{split.name}"
        counts = ("tested", "duplicated", "test_slices", "equal_slices")
        cells = [number(len(split.shared), key, "shared", "count")]
        cells += [number(getattr(split, name), key, name, "count") for name in counts]
        cells += [number(split.crossing[kind], key, f"crossing.{kind}", "count") for kind in KINDS]
        rows.append([split.name, *cells])
    return Grid(
        Markup(
            "<b>Duplicates, split by split.</b> How many subjects are in several subsets by their "
            "ids, how many of the tested {unit} have a duplicate in "
            "training{under}, how many test slices equal a training slice in every pixel, and how "
            "many pairs are in several subsets."
        ).format(unit=audit.unit, under="" if audit.unit == "pictures" else " under another id"),
        (
            ("Split", ""),
            ("Subjects in several subsets", ""),
            (f"Test {audit.unit}", ""),
            ("with a duplicate in training", ""),
            ("Test slices", ""),
            ("equal to a training slice", ""),
            ("Pairs across subsets: identical", ""),
            ("copies", ""),
            ("one head", ""),
        ),
        rows,
    )


def _pairs_grid(
    audit: Audit, pairs: Sequence[Pair], start: int, pixels: NDArray[np.uint8] | None
) -> Grid:
    """Show pairs side by side: their middle slices, whose they are, and their subsets."""
    rows: list[list[Cell]] = []
    for rank, pair in enumerate(pairs, start=start):
        key = f"audit/pair{rank}"
        scores = [
            number(getattr(pair, name), key, name, "fraction") for name in ("correlation", "detail")
        ]
        two = [_scan_cell(audit, pair, n, pixels) for n in (0, 1)]
        rows.append([*two, KINDS[pair.kind], _subsets_cell(pair), *scores])
    return Grid(
        Markup(
            "<b>Pairs that show one head.</b> Look at the folds: they are as particular to a "
            "subject as a fingerprint."
        ),
        (
            ("First", ""),
            ("Second", ""),
            ("What it is", ""),
            ("Subsets", ""),
            ("Correlation", ""),
            ("Detail", ""),
        ),
        rows,
        left=4,
    )


def _scan_cell(audit: Audit, pair: Pair, n: int, pixels: NDArray[np.uint8] | None) -> Markup:
    """Return one scan of a pair: its middle slice, whose it is, and its label."""
    picture = Markup()
    if pixels is not None and pair.rows[n] < len(pixels):
        picture = Markup(
            '<img src="{}" alt="Middle slice of {}" width="{}" height="{}"><br>'
        ).format(picture_source(pixels[pair.rows[n]]), pair.scans[n], SIDE, SIDE)
    name = pair.scans[n]
    if audit.unit == "subjects":
        name = f"{pair.subjects[n]}, session {pair.sessions[n]}"
    return Markup("{}{} <small>{}</small>").format(picture, name, pair.labels[n])


def _subsets_cell(pair: Pair) -> Cell:
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
    lines = [
        Markup('<span class="bad">{}</span><small>{} | {}</small>').format(
            split, *map(", ".join, pair.subsets[split])
        )
        for split in crossed
    ]
    return Markup().join(lines)


def _axis(low: float, value: float, high: float, colour: str) -> Markup:
    """Draw an AUC with its interval on an axis from 0 to 1, the line of chance at 0.5."""
    return Markup(
        '<svg viewBox="-6 0 212 18" width="212" height="18" role="img" '
        'aria-label="{value:.2f}, {low:.2f} to {high:.2f}">'
        '<line x1="0" x2="200" y1="9" y2="9" stroke="#e9ebef"/>'
        '<line x1="100" x2="100" y1="1" y2="17" stroke="#56606c" stroke-dasharray="2 2"/>'
        '<line x1="{a:.1f}" x2="{b:.1f}" y1="9" y2="9" stroke="{colour}" stroke-width="3"/>'
        '<circle cx="{c:.1f}" cy="9" r="4.5" fill="{colour}"/></svg>'
    ).format(
        value=value, low=low, high=high, a=200 * low, b=200 * high, c=200 * value, colour=colour
    )
