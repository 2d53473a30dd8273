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
    return [*_first_try(runs), *_pretrained(runs)]


def _first_try(runs: Sequence[Run]) -> list[Markup]:
    limits = sorted({int(run.settings["limit"]) for run in runs if "limit" in run.settings})
    if not limits:
        return []
    text = (
        "<b>A first try:</b> {} {} of each class were drawn, or all where there are fewer "
        "(<code>limit</code>); these scores are no result of the cohort."
    )
    unit = "subjects" if all(run.named for run in runs) else "subjects or pictures"
    return [say(text, number(limits[0], "all", "limit", "count"), unit)]


def _pretrained(runs: Sequence[Run]) -> list[Markup]:
    """Name the cohorts that encoder and data share, each once, and how that is known."""
    seen = [text for run in runs for text in run.settings.get("pretraining_overlap", [])]
    return [
        say(
            "<b>The encoder may have seen these subjects:</b> {}. They are not unseen, whatever "
            "the split; take weights without this cohort, or another cohort.",
            text,
        )
        for text in dict.fromkeys(seen)
    ]
