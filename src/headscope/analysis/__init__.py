"""From the record to results: arrays in, small frozen dataclasses and tables out."""

from headscope.analysis.fits import PolynomialFit, polynomial_fits
from headscope.analysis.pairs import (
    PairAnalysis,
    correlation_from_moments,
    pair_analysis,
    sum_shrinkage,
)
from headscope.analysis.table import (
    NAMELESS,
    LogitScatter,
    cohort_table,
    format_fraction,
    format_percent,
    format_seconds,
    logit_scatter,
    markdown_table,
    regime_text,
    results_table,
    run_fold,
    run_network,
    run_title,
    run_variant,
    seed_summary,
    shared_subjects,
)
from headscope.analysis.weights import (
    HeadAnalysis,
    class_pairs,
    head_analysis,
    run_head_analysis,
    run_pair_analysis,
)

__all__ = [
    "NAMELESS",
    "HeadAnalysis",
    "LogitScatter",
    "PairAnalysis",
    "PolynomialFit",
    "class_pairs",
    "cohort_table",
    "correlation_from_moments",
    "format_fraction",
    "format_percent",
    "format_seconds",
    "head_analysis",
    "logit_scatter",
    "markdown_table",
    "pair_analysis",
    "polynomial_fits",
    "regime_text",
    "results_table",
    "run_fold",
    "run_head_analysis",
    "run_network",
    "run_pair_analysis",
    "run_title",
    "run_variant",
    "seed_summary",
    "shared_subjects",
    "sum_shrinkage",
]
