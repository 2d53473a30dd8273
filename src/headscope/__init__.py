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
hs.analyse_leakage(hs.read_experiment("first"))    leak gap, permuted labels, identity, dose
hs.compare_runs(hs.read_experiment("experiment"))   which settings differ, on the same subjects
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headscope import figures
    from headscope.analysis.final_layer.layer import (
        analyse_head,
        analyse_pair,
        head_analysis,
        logit_contributions,
        seed_correlation,
    )
    from headscope.analysis.final_layer.pairs import pair_analysis
    from headscope.analysis.leakage.analysis import analyse_leakage
    from headscope.analysis.representation.features import analyse_features, feature_analysis
    from headscope.analysis.results.calibration import analyse_calibration
    from headscope.analysis.results.comparisons import compare_runs
    from headscope.auditing.audit import audit
    from headscope.auditing.inspect import inspect_data as inspect
    from headscope.errors import InputError, RunError
    from headscope.experiment.config import Config
    from headscope.experiment.predict import predict
    from headscope.experiment.run import run
    from headscope.models.checkpoint import read_head
    from headscope.models.listing import list_models
    from headscope.record import Run, read_experiment
    from headscope.reporting import write_report as report
    from headscope.simulation.cohort import simulate_cohort as simulate
    from headscope.simulation.oasis_vbm import fetch_oasis_vbm as fetch
    from headscope.slicing.export import slice_data as slice

_HOMES = {
    "Config": ("headscope.experiment.config", "Config"),
    "InputError": ("headscope.errors", "InputError"),
    "Run": ("headscope.record", "Run"),
    "RunError": ("headscope.errors", "RunError"),
    "audit": ("headscope.auditing.audit", "audit"),
    "compare_runs": ("headscope.analysis.results.comparisons", "compare_runs"),
    "feature_analysis": ("headscope.analysis.representation.features", "feature_analysis"),
    "fetch": ("headscope.simulation.oasis_vbm", "fetch_oasis_vbm"),
    "figures": ("headscope.figures", ""),
    "head_analysis": ("headscope.analysis.final_layer.layer", "head_analysis"),
    "inspect": ("headscope.auditing.inspect", "inspect_data"),
    "analyse_leakage": ("headscope.analysis.leakage.analysis", "analyse_leakage"),
    "list_models": ("headscope.models.listing", "list_models"),
    "predict": ("headscope.experiment.predict", "predict"),
    "pair_analysis": ("headscope.analysis.final_layer.pairs", "pair_analysis"),
    "read_head": ("headscope.models.checkpoint", "read_head"),
    "read_experiment": ("headscope.record", "read_experiment"),
    "report": ("headscope.reporting", "write_report"),
    "run": ("headscope.experiment.run", "run"),
    "analyse_calibration": ("headscope.analysis.results.calibration", "analyse_calibration"),
    "analyse_features": ("headscope.analysis.representation.features", "analyse_features"),
    "logit_contributions": ("headscope.analysis.final_layer.layer", "logit_contributions"),
    "seed_correlation": ("headscope.analysis.final_layer.layer", "seed_correlation"),
    "analyse_pair": ("headscope.analysis.final_layer.layer", "analyse_pair"),
    "analyse_head": ("headscope.analysis.final_layer.layer", "analyse_head"),
    "slice": ("headscope.slicing.export", "slice_data"),
    "simulate": ("headscope.simulation.cohort", "simulate_cohort"),
}
RENAMED = {
    "carriers": "logit_contributions",
    "leakage_analysis": "analyse_leakage",
    "run_calibration": "analyse_calibration",
    "run_feature_analysis": "analyse_features",
    "run_head_analysis": "analyse_head",
}
__version__ = "0.1.0"
__all__ = [
    "Config",
    "InputError",
    "Run",
    "RunError",
    "analyse_calibration",
    "analyse_features",
    "analyse_head",
    "analyse_leakage",
    "analyse_pair",
    "audit",
    "compare_runs",
    "feature_analysis",
    "fetch",
    "figures",
    "head_analysis",
    "inspect",
    "list_models",
    "logit_contributions",
    "pair_analysis",
    "predict",
    "read_experiment",
    "read_head",
    "report",
    "run",
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
