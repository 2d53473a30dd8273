"""CLAIM 2024 and TRIPOD+AI, filled from the record as far as the record knows.

What an item asks for is said in words of our own, in `checklists.tsv` (the text of CLAIM is its
publisher's; TRIPOD+AI is CC BY 4.0). Sources: Tejani et al. 2024; Collins et al. 2024.
"""

from pathlib import Path
from typing import Final

from headscope.files import read_table
from headscope.supplement.answers import answer
from headscope.supplement.prose import CITATION, Facts
from headscope.supplement.study import Study
from headscope.tables import Table

LISTS: Final = {"CLAIM 2024": "claim", "TRIPOD+AI": "tripod-ai"}
LEGEND: Final = (
    "Answered by: 'record' where the record of the experiment answers, 'author' where only the "
    "author knows, 'not done' where the study did not do it. What the record adds to an author's "
    "answer stands beside it. The wording of the items is headscope's."
)


def checklist(name: str, study: Study, facts: Facts) -> Table:
    """Fill a checklist, "CLAIM 2024" or "TRIPOD+AI": one row per item."""
    items = read_table(Path(__file__).with_name("checklists.tsv"))
    rows = []
    for item in items[items["checklist"] == name].to_dict("records"):
        reply = answer(item["answer"], study, facts)
        text = CITATION.sub("", reply.text)
        rows.append((str(item["item"]), item["section"], item["asks"], reply.status, text))
    columns = ["Item", "Section", "Asks to", "Answered by", "Answer"]
    return Table(f"{name}, {study.name}", columns, rows, [LEGEND])
