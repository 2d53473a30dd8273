"""All that else could explain an accuracy, in the order of the page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.results.comparisons import Comparisons
from headscope.analysis.results.settings import SettingResult
from headscope.reporting.explanations.cohorts import explain_by_cohorts
from headscope.reporting.explanations.confounders import explain_by_confounders
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.explanations.inferred import explain_by_inference
from headscope.reporting.explanations.ladder import explain_by_ladder
from headscope.reporting.explanations.provenance import explain_by_provenance
from headscope.reporting.explanations.rivals import explain_by_rivals


def explain(
    experiment: Path,
    results: Sequence[SettingResult],
    rivals: Sequence[SettingResult],
    compared: Comparisons,
    pixels: NDArray[np.uint8] | None,
    *,
    pictures: bool,
) -> list[Explanation]:
    """Return what else could explain what networks reach.

    results and rivals: of `setting_results`; compared: of all their runs; pixels: the experiment's
    slices (N, H, W), where they are there; pictures: whether the page shows slices of the rungs.
    """
    return [
        explain_by_inference(results),
        explain_by_provenance([run for result in results for run in result.runs]),
        explain_by_rivals(results, rivals, compared),
        explain_by_confounders(experiment, results),
        explain_by_cohorts(experiment, results, pixels),
        explain_by_ladder(experiment, pictures=pictures),
    ]
