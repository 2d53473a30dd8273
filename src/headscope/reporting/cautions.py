"""What the audit of the slices adds to the verdict: why an accuracy may not be what it seems."""

from collections.abc import Sequence

from markupsafe import Markup

from headscope.audit_record import Audit, Shortcut, SplitCheck
from headscope.record import Run
from headscope.reporting.numbers import number

LINK = Markup('<a href="#audit">what the audit of the slices found</a>')


def cautions(audit: Audit | None, runs: Sequence[Run]) -> list[Markup]:
    """Return the sentences that the audit adds to the verdict; none where nothing is serious.

    Parameters
    ----------
    audit
        Of the experiment; None (an experiment of an earlier version) says nothing.
    runs
        The runs of which the verdict speaks: of those under a split by subject, if there are any,
        else of all.

    Returns
    -------
    list of Markup
        At most one sentence on duplicates between training and test, by the splits of these runs,
        and one on shortcuts that tell the label.
    """
    if audit is None:
        return []
    checks = _checks(audit, runs)
    crossed = [check for check in checks if check.duplicated or check.equal_slices]
    sentences = []
    if crossed:
        sentences.append(_duplicates(audit, crossed, len(checks)))
    if audit.telling():
        sentences.append(_shortcuts(audit, audit.telling()))
    return sentences


def _checks(audit: Audit, runs: Sequence[Run]) -> list[SplitCheck]:
    """Return the splits that the runs trained by, each once: those by subject, if there are any."""
    apart = [run for run in runs if run.settings.get("split") == "subject"] or list(runs)
    checks = {
        check.name: check
        for run in apart
        if (check := audit.split(run.settings.get("split_sha256"))) is not None
    }
    return list(checks.values())


def _duplicates(audit: Audit, crossed: Sequence[SplitCheck], splits: int) -> Markup:
    """Say how much of the test is in training too; of several splits, of the worst one."""
    worst = max(crossed, key=lambda check: (check.duplicated, check.equal_slices))
    return Markup(
        "<b>Training and test share heads.</b> {where}{what}, so the accuracy is not that of heads "
        "never seen in training: {link}."
    ).format(where=_where(worst, crossed, splits), what=_leaked(audit, worst), link=LINK)


def _where(worst: SplitCheck, crossed: Sequence[SplitCheck], splits: int) -> Markup:
    if splits == 1:
        return Markup()
    return Markup("This holds of {count} of {all} splits; in the worst, {name}, ").format(
        count=number(len(crossed), "audit", "splits_crossed", "count"),
        all=number(splits, "audit", "splits", "count"),
        name=worst.name,
    )


def _leaked(audit: Audit, check: SplitCheck) -> Markup:
    """Say how many of the tested have a duplicate in training, or how many slices are equal."""
    key = f"audit/{check.name}"
    equal = Markup("{} of {} test slices are equal to a training slice in every pixel").format(
        number(check.equal_slices, key, "equal_slices", "count"),
        number(check.test_slices, key, "test_slices", "count"),
    )
    if not check.duplicated:
        return equal
    return Markup(
        "{n} of the {all} test {unit} {have} a duplicate in training{under}{equal}"
    ).format(
        n=number(check.duplicated, key, "duplicated", "count"),
        all=number(check.tested, key, "tested", "count"),
        unit=audit.unit,
        have="has" if check.duplicated == 1 else "have",
        under="" if audit.unit == "pictures" else " under another id",
        equal=Markup(" ({})").format(equal)
        if check.equal_slices and audit.unit != "pictures"
        else "",
    )


def _shortcuts(audit: Audit, telling: Sequence[Shortcut]) -> Markup:
    """Say which facts tell the label without anatomy, the surest first."""
    first, *others = sorted(telling, key=lambda shortcut: -(shortcut.low or 0.0))
    key = f"audit/{first.family}"
    more = Markup()
    if others:
        more = Markup(" (and so {} {})").format(
            "does" if len(others) == 1 else "do",
            " and ".join(shortcut.family for shortcut in others),
        )
    return Markup(
        "<b>A shortcut tells the label.</b> {family} alone ({holds}) tells it with an AUC of {auc} "
        "({low} to {high}) over {unit}{more}, so the accuracy need not be about anatomy: {link}."
    ).format(
        family=first.family.capitalize(),
        holds=first.holds,
        auc=number(first.auc, key, "auc", "fraction"),
        low=number(first.low, key, "auc_low", "fraction"),
        high=number(first.high, key, "auc_high", "fraction"),
        unit=audit.unit,
        more=more,
        link=LINK,
    )
