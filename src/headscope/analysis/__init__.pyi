"""Names of the package and their modules; `__init__.py` imports each when it is first used."""

from .final_layer.contributions import (
    LogitContribution,
    logit_contributions,
    seed_correlation,
)
from .final_layer.fits import PolynomialFit
from .final_layer.layer import (
    HeadAnalysis,
    analyse_head,
    analyse_pair,
    head_analysis,
    run_shrinkage,
)
from .final_layer.null import correlation_from_moments, sum_shrinkage
from .final_layer.pairs import PairAnalysis, class_pairs, pair_analysis
from .final_layer.relation import learned_null
from .representation.collapse import analyse_collapse
from .representation.location import analyse_flattening
from .representation.stages import analyse_transfer
from .results.settings import choose, setting_results, settings_table
from .results.table import (
    NAMELESS,
    LogitScatter,
    cohort_table,
    logit_scatter,
    markdown_table,
    regime_text,
    results_table,
    shared_subjects,
)

__all__ = [
    "NAMELESS",
    "HeadAnalysis",
    "LogitContribution",
    "LogitScatter",
    "PairAnalysis",
    "PolynomialFit",
    "analyse_collapse",
    "analyse_flattening",
    "analyse_head",
    "analyse_pair",
    "analyse_transfer",
    "choose",
    "class_pairs",
    "cohort_table",
    "correlation_from_moments",
    "head_analysis",
    "learned_null",
    "logit_contributions",
    "logit_scatter",
    "markdown_table",
    "pair_analysis",
    "regime_text",
    "results_table",
    "run_shrinkage",
    "seed_correlation",
    "setting_results",
    "settings_table",
    "shared_subjects",
    "sum_shrinkage",
]
