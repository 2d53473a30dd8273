"""From the record to results: arrays in, small frozen dataclasses and tables out."""

from headscope.analysis.final_layer.fits import PolynomialFit, polynomial_fits
from headscope.analysis.final_layer.layer import (
    HeadAnalysis,
    LogitContribution,
    SeedCorrelation,
    analyse_head,
    analyse_pair,
    head_analysis,
    logit_contributions,
    run_shrinkage,
    seed_correlation,
)
from headscope.analysis.final_layer.null import (
    correlation_from_moments,
    residual_interval,
    sum_shrinkage,
)
from headscope.analysis.final_layer.pairs import PairAnalysis, class_pairs, pair_analysis
from headscope.analysis.final_layer.relation import LearnedNull, learned_null
from headscope.analysis.final_layer.rows import Geometry, RowSummary
from headscope.analysis.representation.collapse import (
    Collapse,
    analyse_collapse,
    collapse_analysis,
)
from headscope.analysis.representation.features import (
    Ellipse,
    FeatureAnalysis,
    analyse_features,
    class_ellipses,
    feature_analysis,
)
from headscope.analysis.representation.intraclass import Intraclass, intraclass
from headscope.analysis.representation.location import (
    FlattenAnalysis,
    analyse_contributions,
    analyse_flattening,
    contribution_maps,
    flatten_analysis,
)
from headscope.analysis.representation.readout import Tail, make_tail, read_tail
from headscope.analysis.representation.separation import Separation, separation
from headscope.analysis.representation.stages import (
    TransferAnalysis,
    analyse_transfer,
    linear_cka,
)
from headscope.analysis.results.calibration import Calibration, analyse_calibration
from headscope.analysis.results.chance import AgainstChance, against_chance
from headscope.analysis.results.comparisons import Comparison, Comparisons, compare_runs
from headscope.analysis.results.settings import (
    SettingResult,
    choose,
    setting_results,
    settings_table,
)
from headscope.analysis.results.table import (
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
    "AgainstChance",
    "Calibration",
    "Collapse",
    "Comparison",
    "Comparisons",
    "Ellipse",
    "FeatureAnalysis",
    "FlattenAnalysis",
    "Geometry",
    "HeadAnalysis",
    "Intraclass",
    "LearnedNull",
    "LogitContribution",
    "LogitScatter",
    "PairAnalysis",
    "PolynomialFit",
    "RowSummary",
    "SeedCorrelation",
    "Separation",
    "SettingResult",
    "Tail",
    "TransferAnalysis",
    "against_chance",
    "analyse_calibration",
    "analyse_collapse",
    "analyse_contributions",
    "analyse_features",
    "analyse_flattening",
    "analyse_head",
    "analyse_pair",
    "analyse_transfer",
    "choose",
    "class_ellipses",
    "class_pairs",
    "cohort_table",
    "collapse_analysis",
    "compare_runs",
    "contribution_maps",
    "correlation_from_moments",
    "feature_analysis",
    "flatten_analysis",
    "head_analysis",
    "intraclass",
    "learned_null",
    "linear_cka",
    "logit_contributions",
    "logit_scatter",
    "make_tail",
    "markdown_table",
    "pair_analysis",
    "polynomial_fits",
    "read_tail",
    "regime_text",
    "residual_interval",
    "results_table",
    "run_shrinkage",
    "seed_correlation",
    "separation",
    "setting_results",
    "settings_table",
    "shared_subjects",
    "sum_shrinkage",
]
