"""Names of the library and their modules; `__init__.py` imports each when it is first used."""

from . import figures
from .analysis.explanations.confounding import analyse_confounders
from .analysis.final_layer.contributions import logit_contributions, seed_correlation
from .analysis.final_layer.layer import analyse_head, analyse_pair, head_analysis
from .analysis.final_layer.pairs import pair_analysis
from .analysis.leakage.analysis import analyse_leakage
from .analysis.representation.features import analyse_features, feature_analysis
from .analysis.results.calibration import analyse_calibration
from .analysis.results.comparisons import compare_runs
from .auditing.audit import audit
from .auditing.inspect import inspect_data as inspect
from .errors import InputError, RunError
from .experiment.ablate import ablate
from .experiment.config import Config
from .experiment.new_scans.evaluate import evaluate
from .experiment.predict import predict
from .experiment.preflight import list_runs
from .experiment.run import run
from .models.checkpoint import read_head
from .models.listing import list_models
from .record import Run, read_experiment
from .record import export_run as export
from .reporting.page import write_report as report
from .reporting.side_by_side import write_side_by_side as side_by_side
from .scoring.score import score
from .simulation.cohort import simulate_cohort as simulate
from .simulation.oasis_vbm import fetch_oasis_vbm as fetch
from .slicing.export import slice_data as slice
from .supplement.write import write_figures
from .tracking.notebook import open_experiment as open
from .tracking.track import track
from .verification.verify import verify

__version__: str
RENAMED: dict[str, str]
__all__ = [
    "Config",
    "InputError",
    "Run",
    "RunError",
    "ablate",
    "analyse_calibration",
    "analyse_confounders",
    "analyse_features",
    "analyse_head",
    "analyse_leakage",
    "analyse_pair",
    "audit",
    "compare_runs",
    "evaluate",
    "export",
    "feature_analysis",
    "fetch",
    "figures",
    "head_analysis",
    "inspect",
    "list_models",
    "list_runs",
    "logit_contributions",
    "open",
    "pair_analysis",
    "predict",
    "read_experiment",
    "read_head",
    "report",
    "run",
    "score",
    "seed_correlation",
    "side_by_side",
    "simulate",
    "slice",
    "track",
    "verify",
    "write_figures",
]
