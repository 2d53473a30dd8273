"""The one fold maker: units dealt to folds in turn, stratum by stratum."""

import numpy as np
from numpy.typing import NDArray


def deal_folds(
    strata: NDArray[np.integer], folds: int, order: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return the fold of each unit, from 0.

    Folds differ by one unit at most, in all and in each stratum: dealing continues from one stratum
    to the next.

    Parameters
    ----------
    strata
        The stratum of each unit (U,); strata are dealt in ascending order.
    folds
        How many folds.
    order
        A permutation of the units (U,): within a stratum they are dealt in this order.
    """
    fold = np.empty(len(strata), dtype=np.int64)
    fold[order[np.argsort(strata[order], kind="stable")]] = np.arange(len(strata)) % folds
    return fold
