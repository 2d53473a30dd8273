"""What did the head learn, and should you believe its accuracy?

import headscope as hs

hs.run(hs.Config(data="scans", out="experiment"))   the whole path, from scans to records
hs.predict("experiment/runs/NAME", "new.nii.gz")    what a run says of a new scan
hs.report("experiment")                             table, figures and HTML page
hs.simulate("cohort")                               a simulated cohort with known atrophy
hs.audit("scans")                                   duplicates, leaks and shortcuts
hs.inspect("scans")                                 subjects, sessions, classes, problems
hs.slice("scans", "slices")                         labelled mid-slices, as a store or pictures
hs.list_models("timm/convnext*")                    architectures, weights on this machine
hs.figures.plot_weights(found.pairs[0])             every figure of the report, and more
hs.head_analysis(weight, bias, initial)             the final layer, explained
hs.read_head("network.pth")                         the final layer of anyone's network
hs.feature_analysis(features, logits, labels, subjects)   what it reads: classes, subjects
hs.leakage_analysis(hs.read_experiment("first"))    leak gap, permuted labels, identity, dose
hs.compare_runs(hs.read_experiment("experiment"))   which settings differ, on the same subjects
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headscope import figures
    from headscope.analysis.calibration import run_calibration
    from headscope.analysis.comparisons import compare_runs
    from headscope.analysis.features import feature_analysis, run_feature_analysis
    from headscope.analysis.leakage import leakage_analysis
    from headscope.analysis.pairs import pair_analysis
    from headscope.analysis.weights import (
        carriers,
        head_analysis,
        run_head_analysis,
        seed_correlation,
    )
    from headscope.checkpoint import read_head
    from headscope.cohort.audit import audit
    from headscope.cohort.export import slice_data as slice
    from headscope.cohort.fetch import fetch_oasis_vbm as fetch
    from headscope.cohort.inspection import inspect_data as inspect
    from headscope.cohort.simulate import simulate_cohort as simulate
    from headscope.config import Config
    from headscope.errors import InputError, RunError
    from headscope.experiment import run
    from headscope.models.listing import list_models
    from headscope.prediction import predict
    from headscope.record import Run, read_experiment
    from headscope.reporting import write_report as report

_HOMES = {
    "Config": ("headscope.config", "Config"),
    "InputError": ("headscope.errors", "InputError"),
    "Run": ("headscope.record", "Run"),
    "RunError": ("headscope.errors", "RunError"),
    "audit": ("headscope.cohort.audit", "audit"),
    "compare_runs": ("headscope.analysis.comparisons", "compare_runs"),
    "feature_analysis": ("headscope.analysis.features", "feature_analysis"),
    "fetch": ("headscope.cohort.fetch", "fetch_oasis_vbm"),
    "figures": ("headscope.figures", ""),
    "head_analysis": ("headscope.analysis.weights", "head_analysis"),
    "inspect": ("headscope.cohort.inspection", "inspect_data"),
    "leakage_analysis": ("headscope.analysis.leakage", "leakage_analysis"),
    "list_models": ("headscope.models.listing", "list_models"),
    "predict": ("headscope.prediction", "predict"),
    "pair_analysis": ("headscope.analysis.pairs", "pair_analysis"),
    "read_head": ("headscope.checkpoint", "read_head"),
    "read_experiment": ("headscope.record", "read_experiment"),
    "report": ("headscope.reporting", "write_report"),
    "run": ("headscope.experiment", "run"),
    "run_calibration": ("headscope.analysis.calibration", "run_calibration"),
    "run_feature_analysis": ("headscope.analysis.features", "run_feature_analysis"),
    "carriers": ("headscope.analysis.weights", "carriers"),
    "seed_correlation": ("headscope.analysis.weights", "seed_correlation"),
    "run_head_analysis": ("headscope.analysis.weights", "run_head_analysis"),
    "slice": ("headscope.cohort.export", "slice_data"),
    "simulate": ("headscope.cohort.simulate", "simulate_cohort"),
}
__version__ = "0.1.0"
__all__ = [
    "Config",
    "InputError",
    "Run",
    "RunError",
    "audit",
    "carriers",
    "compare_runs",
    "feature_analysis",
    "fetch",
    "figures",
    "head_analysis",
    "inspect",
    "leakage_analysis",
    "list_models",
    "pair_analysis",
    "predict",
    "read_experiment",
    "read_head",
    "report",
    "run",
    "run_calibration",
    "run_feature_analysis",
    "run_head_analysis",
    "seed_correlation",
    "simulate",
    "slice",
]


def __getattr__(name: str) -> Any:
    """Import a name's home when it is first asked for: torch alone takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headscope' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    home = import_module(module)
    return getattr(home, attribute) if attribute else home
