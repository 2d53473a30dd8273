"""What runs began with that limits their scores: few subjects, an encoder that saw the cohort."""

from collections.abc import Sequence

from markupsafe import Markup

from headscope.record import Run
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.numbers import number, say


def explain_by_provenance(runs: Sequence[Run]) -> Explanation:
    """Return what runs began with, in flags and verdict alike."""
    said = provenance(runs)
    return Explanation(flags=said, sentences=said)


def provenance(runs: Sequence[Run]) -> list[Markup]:
    """Return sentences for the verdict: on subjects left out to try, and on pretraining.

    `limit` and `pretraining_overlap` are in the settings of a run where they apply.
    """
    limits = sorted({int(run.settings["limit"]) for run in runs if "limit" in run.settings})
    unit = "subjects" if all(run.named for run in runs) else "subjects or pictures"
    first_try = (
        "<b>A first try:</b> {} {} of each class were drawn, or all where there are fewer "
        "(<code>limit</code>); these scores are no result of the cohort."
    )
    pretrained = (
        "<b>The encoder may have seen these subjects:</b> {}. They are not unseen, whatever the "
        "split; take weights without this cohort, or another cohort."
    )
    seen = [text for run in runs for text in run.settings.get("pretraining_overlap", [])]
    return [
        *(say(first_try, number(n, "all", "limit", "count"), unit) for n in limits[:1]),
        *(say(pretrained, text) for text in dict.fromkeys(seen)),
    ]
