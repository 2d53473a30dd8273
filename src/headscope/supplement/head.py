"""What `headscope head` writes: the numbers of a final layer as JSON and tables, its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.analysis.final_layer.contributions import LogitContribution
from headscope.analysis.final_layer.layer import HeadAnalysis
from headscope.analysis.final_layer.pairs import PairAnalysis
from headscope.analysis.final_layer.rows import QUANTILES
from headscope.analysis.representation.collapse import Collapse
from headscope.analysis.representation.features import FeatureAnalysis
from headscope.files import encode_nan, write_json, write_table

SCALARS: Final = (str, int, float, bool, type(None))
MOST_COSINES: Final = 10  # classes


def head_facts(
    head: HeadAnalysis,
    seen: tuple[FeatureAnalysis, Collapse] | tuple[()] = (),
    carried: Sequence[LogitContribution] = (),
) -> dict[str, Any]:
    """Return every number of a final layer, ready for JSON.

    seen: the analyses of the features it reads, if there are any; carried: the features that add
    most to the logits, likewise. Undefined numbers are null, infinite ones the text 'Infinity' or
    '-Infinity'. Beyond ten classes the matrix of cosines is left out, for its range.
    """
    cosines = head.geometry.cosines
    apart = cosines[~np.eye(len(cosines), dtype=bool)]
    geometry = _plain_fields(head.geometry) | {
        "cosine_range": [apart.min(), apart.max()],
        "cosines": cosines.tolist() if len(cosines) <= MOST_COSINES else None,
    }
    facts = {
        "class_names": list(head.class_names),
        "class_count": head.weight.shape[0],
        "feature_count": head.weight.shape[1],
        "displacement_ratio": head.displacement_ratio,
        "row_sum_drift": head.row_sum_drift,
        "meaning": head.meaning,
        "geometry": geometry,
        "pairs": [_pair_facts(pair) for pair in head.pairs],
        "rows": [asdict(row) for row in head.rows],
    }
    if seen:
        facts["features"], facts["collapse"] = map(_jsonable_fields, seen)
        facts["carriers"] = [asdict(contribution) for contribution in carried]
    return encode_nan(facts)


def head_tables(head: HeadAnalysis) -> dict[str, pd.DataFrame]:
    """Return the tables 'rows', 'pairs' and 'fits' of a final layer, all digits kept."""
    rows = pd.DataFrame([asdict(row) for row in head.rows])
    quantiles = pd.DataFrame(
        [row.quantiles for row in head.rows],
        columns=[f"quantile_{100 * level:.0f}" for level in QUANTILES],
    )
    pairs, fits = [], []
    for pair in head.pairs:
        classes = dict(zip(("class_x", "class_y"), pair.class_names, strict=True))
        facts = _pair_facts(pair)
        scalars = {name: value for name, value in facts.items() if isinstance(value, SCALARS)}
        pairs.append(scalars | classes | {"row_x": pair.pair[0], "row_y": pair.pair[1]})
        fits += [classes | _plain_fields(fit) | {"equation": fit.equation} for fit in pair.fits]
    return {
        "rows": pd.concat([rows.drop(columns="quantiles"), quantiles], axis=1),
        "pairs": pd.DataFrame(pairs),
        "fits": pd.DataFrame(fits),
    }


def write_head(
    head: HeadAnalysis, facts: Mapping[str, Any], folder: Path, title: str
) -> list[Path]:
    """Write head.json with `facts`, the tables and the figures into `folder`; return their paths.

    Figures: Fig. 3 of each pair, the distributions of the rows, and, where the initial head is
    known, the two rows before and after training.
    """
    from headscope.figures import plot_head_before_after, plot_row_distributions, plot_weights
    from headscope.supplement.export import save_figure

    written = [folder / "head.json"]
    write_json(written[0], facts)
    for name, table in head_tables(head).items():
        written.append(folder / f"{name}.tsv")
        write_table(written[-1], table)
    for pair in head.pairs:
        suffix = f"{pair.pair[0]}-{pair.pair[1]}"
        figure = plot_weights(pair, title=title)
        written.append(save_figure(figure, folder / f"weights-{suffix}"))
        if head.initial_weight is not None:
            figure = plot_head_before_after(head, pair.pair, title=title)
            written.append(save_figure(figure, folder / f"before-after-{suffix}"))
    figure = plot_row_distributions({"": head}, title=title)
    return [*written, save_figure(figure, folder / "rows")]


def _pair_facts(pair: PairAnalysis) -> dict[str, Any]:
    return _plain_fields(pair) | {
        "class_names": list(pair.class_names),
        "pair": list(pair.pair),
        "departs": pair.departs,
        "drifted": pair.drifted,
        "related": pair.related,
        "notes": list(pair.notes),
        "fits": [asdict(fit) | {"equation": fit.equation} for fit in pair.fits],
    }


def _plain_fields(result: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if isinstance(value, SCALARS)}


def _jsonable_fields(result: Any) -> Any:
    """Return a result and those within it as tables, without their long arrays."""
    if is_dataclass(result):
        return {
            name: _jsonable_fields(value)
            for name, value in vars(result).items()
            if not isinstance(value, np.ndarray) or value.size <= MOST_COSINES**2
        }
    if isinstance(result, Mapping):
        return {str(name): _jsonable_fields(value) for name, value in result.items()}
    if isinstance(result, tuple | list):
        return [_jsonable_fields(value) for value in result]
    return result if isinstance(result, SCALARS) else None
