"""What the audit of the slices adds to the verdict: why an accuracy may not be what it seems."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from headscope.analysis.leakage.findings import APART
from headscope.audit_record import MOST_NAMED, Audit, Shortcut, SplitCheck
from headscope.record import Run
from headscope.reporting.numbers import ends_of, number, say

LINK = Markup('<a href="#audit">what the audit of the slices found</a>')


def cautions(audit: Audit | None, runs: Sequence[Run]) -> list[Markup]:
    """Return the sentences that the audit adds to the verdict; none where nothing is serious.

    At most one sentence on duplicates between training and test, by the splits of the runs of which
    the verdict speaks (those under a split by subject, if there are any, else all), and one on
    shortcuts that tell the label. Without an audit (an experiment of an earlier version) there is
    none.
    """
    if audit is None:
        return []
    checks = _checks(audit, runs)
    crossed = list(filter(_crosses, checks))
    sentences = []
    if crossed:
        sentences.append(_duplicates(audit, crossed, len(checks)))
    if audit.telling():
        sentences.append(_shortcuts(audit, audit.telling()))
    return sentences


def shared_heads(audit: Audit | None, runs: Sequence[Run]) -> bool:
    """Return whether a head of the test is in training under another id, as far as was audited."""
    return audit is not None and any(map(_crosses, _checks(audit, runs)))


def _crosses(check: SplitCheck) -> bool:
    return bool(check.duplicated or check.equal_slices)


def unaudited(audit: Audit | None, runs: Sequence[Run]) -> Markup | str:
    """Say that nothing looked for heads on both sides of a split, where no audit is of it."""
    splits = {run.settings.get("split_sha256") for run in runs}
    if audit is not None and all(audit.split(name) for name in splits):
        return ""
    return Markup(
        "<b>Not audited:</b> whether a head of the test is in training under another id is not "
        "known here."
    )


def _checks(audit: Audit, runs: Sequence[Run]) -> list[SplitCheck]:
    """Return the checks of the splits by subject, if there are any, else of all."""
    apart = [run for run in runs if run.setting.split in APART] or runs
    splits = [audit.split(run.settings.get("split_sha256")) for run in apart]
    return list({check.name: check for check in splits if check is not None}.values())


def left_out_caution(runs: Mapping[str, str], changed: Sequence[str]) -> list[Markup]:
    """Say that something has changed since it was written, and is therefore no part of the page."""
    if not (runs or changed):
        return []
    names = [*runs] or ["the slices, splits or audit"]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return [
        say(
            "<b>The record has changed since it was written.</b> Nothing here is drawn from {}{}: "
            '<a href="#results">what has changed</a>.',
            ", ".join(names[:MOST_NAMED]),
            more,
        )
    ]


def _duplicates(audit: Audit, crossed: Sequence[SplitCheck], splits: int) -> Markup:
    """Say how much of the test is in training too; of several splits, of the worst one."""
    worst = max(crossed, key=lambda check: (check.duplicated, check.equal_slices))
    where = Markup()
    if splits > 1:
        where = say(
            "This holds of {} of {} splits; in the worst, {}, ",
            number(len(crossed), "audit", "splits_crossed", "count"),
            number(splits, "audit", "splits", "count"),
            worst.name,
        )
    return say(
        "<b>Training and test share heads.</b> {}{}, so the accuracy is not that of heads never "
        "seen in training: {}.",
        *(where, _leaked(audit, worst), LINK),
    )


def _leaked(audit: Audit, check: SplitCheck) -> Markup:
    """Say how many of the tested have a duplicate in training, or how many slices are equal."""
    names = ("equal_slices", "test_slices", "duplicated", "tested")
    equal_slices, test_slices, duplicated, tested = (
        number(getattr(check, name), f"audit/{check.name}", name, "count") for name in names
    )
    equal = say(
        "{} of {} test slices are equal to a training slice in every pixel",
        *(equal_slices, test_slices),
    )
    if not check.duplicated:
        return equal
    pictures = audit.unit == "pictures"
    return say(
        "{} of the {} test {} {} a duplicate in training{}{}",
        *(duplicated, tested, audit.unit),
        "has" if check.duplicated == 1 else "have",
        "" if pictures else " under another id",
        say(" ({})", equal) if check.equal_slices and not pictures else "",
    )


def _shortcuts(audit: Audit, telling: Sequence[Shortcut]) -> Markup:
    """Say which facts tell the label without anatomy, the surest first."""
    first, *others = sorted(telling, key=lambda shortcut: -(shortcut.low or 0.0))
    more = ""
    if others:
        verb = "does" if len(others) == 1 else "do"
        more = f" (and so {verb} {' and '.join(shortcut.family for shortcut in others)})"
    place = f"audit/{first.family}", "auc", "fraction"
    return say(
        "<b>A shortcut tells the label.</b> {} alone ({}) tells it with an AUC of {} ({} to {}) "
        "over {}{}, so the accuracy need not be about anatomy: {}.",
        *(first.family.capitalize(), first.holds, number(first.auc, *place)),
        *ends_of((first.low, first.high), *place),
        *(audit.unit, more, LINK),
    )
