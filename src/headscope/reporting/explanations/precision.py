"""What a test of so many subjects can tell, beside what it told."""

from collections.abc import Sequence

import pandas as pd

from headscope.analysis.results.settings import SettingResult
from headscope.metrics.precision import precisions
from headscope.reporting.blocks import Fold, TableBlock


def precision_folds(results: Sequence[SettingResult]) -> list[Fold]:
    """Return a fold on the test that keeps subjects apart: how wide intervals are, what it finds.

    Of the first seed; nothing where no setting keeps subjects apart.
    """
    apart = [result for result in results if result.apart]
    if not apart:
        return []
    best = max(apart, key=lambda result: len(result.fits))
    rows = pd.concat(
        [run.predicted("test") for run in best.runs if run.setting.seed == best.seeds[0]]
    )
    subjects = rows.drop_duplicates(["subject_id", "label"])["label"].value_counts()
    made = precisions([int(subjects.get(name, 0)) for name in best.runs[0].class_names])
    title = "What a test of so many subjects can tell"
    return [Fold(title, [TableBlock("precision", made.tables()[0])])]
