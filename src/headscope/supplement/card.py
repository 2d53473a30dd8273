"""A model card of an experiment's networks. Source: Mitchell et al. 2019."""

from typing import Final

from headscope.analysis.results.table import full_table
from headscope.grouping import KEYS
from headscope.supplement.answers import cautions, larger_class, performance
from headscope.supplement.methods import PARAGRAPHS
from headscope.supplement.prose import CITATION, Facts, escape_markdown, listed
from headscope.supplement.study import Study
from headscope.tables import Table

USE: Final = (
    "Research on what networks learn from MRI slices, and on what their accuracies are worth. "
    "It is no medical device: no decision about a subject may rest on it."
)
AUTHOR: Final = "*The author fills this in.*"
SHOWN_DIGITS: Final = 12  # of a SHA-256


def model_card(study: Study, facts: Facts) -> str:
    """Return the card in Markdown; what only the author knows is marked."""
    result = study.chosen[0]
    sections = {
        "Networks": [_networks(study)],
        "Intended use": [USE, f"Intended users and settings: {AUTHOR}"],
        "Data": _paragraphs(study, facts, "Data", "Slices", "Splits"),
        "Training": _paragraphs(study, facts, "Networks", "Training", "Software"),
        "Evaluation": [
            *_paragraphs(study, facts, "Evaluation"),
            escape_markdown(performance(study, facts, *result.scores)),
            escape_markdown(larger_class(study, facts)),
            full_table(study.table).to_markdown(),
        ],
        "Groups of subjects": [_groups(study)],
        "Cautions": [
            "\n".join(f"* {escape_markdown(line)}" for line in cautions(study, facts))
            or "None on record."
        ],
        "How to use a network": [_use(study)],
        "Ethics, licence and contact": [AUTHOR],
    }
    lines = [f"# Model card: {escape_markdown(study.name)}"]
    for title, paragraphs in sections.items():
        lines += [f"## {title}", *(text for text in paragraphs if text)]
    return "\n\n".join(lines) + "\n"


def _paragraphs(study: Study, facts: Facts, *names: str) -> list[str]:
    return [escape_markdown(CITATION.sub("", PARAGRAPHS[name](study, facts))) for name in names]


def _networks(study: Study) -> str:
    """Return the runs with what identifies their weights and data."""
    rows = []
    for run in study.runs:
        digests = (str(run.settings.get(f"{of}_sha256", "")) for of in ("weights", "slices"))
        rows.append((run.name, *(digest[:SHOWN_DIGITS] for digest in digests), run.keeps_network))
    columns = ["Run", "Weights at the start (SHA-256)", "Slices (SHA-256)", "On record"]
    return Table("", columns, rows).to_markdown()


def _groups(study: Study) -> str:
    """Say where scores by group are; the report has them of settings that keep subjects apart."""
    table = study.participants
    names = [str(name) for name in table if name not in KEYS and table[name].nunique() > 1]
    text = "Scores by sex, age or site were not computed."
    if names and any(result.apart for result in study.results):
        text = f"The report has scores by {listed(names)}, of groups with subjects of two classes."
    return escape_markdown(f"{text} Table 1 says who the subjects are.")


def _use(study: Study) -> str:
    stored = [run for run in study.chosen[0].runs if run.keeps_network]
    if not stored:
        return "The weights of the chosen networks are not in the record."
    return f"    headscope predict {study.name}/runs/{stored[0].name} SCAN"
