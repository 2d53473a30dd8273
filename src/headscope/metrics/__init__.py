"""Slice and subject scores with 95% intervals over subjects.

The unit of inference is the subject: slices of one subject are near copies of each other, so
intervals resample subjects, never slices (docs/trust.md, Intervals).
"""

from headscope.metrics.draws import (
    DRAWS,
    EXTERNAL_SEED,
    GROUPS,
    MOST_DRAWN,
    Drawn,
    Resampled,
    deal_subjects,
    draw_subjects,
    resample,
    strata,
)
from headscope.metrics.intervals import bootstrap_interval, way_of, wilson
from headscope.metrics.repeats import SHARED, SHARED_GAP, repeated_interval
from headscope.metrics.scores import (
    BINS,
    SCORES,
    calibration_bins,
    class_scores,
    scores,
)
from headscope.metrics.subjects import (
    AGGREGATES,
    Units,
    positive_class,
    slice_units,
    softmax,
    subject_level,
)
from headscope.metrics.summary import logit_columns, run_scores, subset_scores, unit_scores

__all__ = [
    "AGGREGATES", "BINS", "DRAWS", "EXTERNAL_SEED", "GROUPS", "MOST_DRAWN", "SCORES", "SHARED",
    "SHARED_GAP", "Drawn", "Resampled", "Units", "bootstrap_interval", "calibration_bins",
    "class_scores", "deal_subjects", "draw_subjects", "logit_columns", "positive_class",
    "repeated_interval", "resample", "run_scores", "scores", "slice_units", "softmax", "strata",
    "subject_level", "subset_scores", "unit_scores", "way_of", "wilson",
]  # fmt: skip
