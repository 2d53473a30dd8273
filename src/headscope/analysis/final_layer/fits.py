"""Polynomials of one row of weights on another (Fig. 3), with the tests between their degrees."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
DEGREES = (1, 2, 3, 4)
NAN = float("nan")
# A residual below this share of the sum of squares is rounding, not misfit.
EXACT = 1e-26


@dataclass(frozen=True)
class PolynomialFit:
    """Least-squares polynomial y(z), z = (x − mu) / sigma, as the paper's tool centres and scales.

    `coefficients` begin with the highest power; `sigma` is the sample standard deviation (n − 1);
    `bic` is that of Gaussian errors with degree + 1 coefficients; `f` tests the fit against the
    one a degree below, and `p` is its tail if features were independent and errors normal.
    Rows that training ties are neither: `shuffled_p` is the share of `shuffles` of the conserved
    part against the learned one whose F reaches `f`, `shuffled_f_median` and `shuffled_f_high` the
    median and 95% quantile of their F (module `shuffles`); NaN where none were made.
    Source: Khagi & Kwon 2022, Fig. 3; docs/science.md, section 3.
    """

    degree: int
    mu: float
    sigma: float
    coefficients: tuple[float, ...]
    residual_norm: float
    r2: float
    adjusted_r2: float
    bic: float
    f: float
    p: float
    shuffles: int = 0
    shuffled_f_median: float = NAN
    shuffled_f_high: float = NAN
    shuffled_p: float = NAN

    def __call__(self, x: ArrayLike) -> Array:
        """Return the fitted y at x."""
        z = (np.asarray(x, dtype=np.float64) - self.mu) / self.sigma
        return np.polyval(np.array(self.coefficients), z)

    @property
    def polynomial(self) -> str:
        """y by z: `y = −0.00022*z^2 − 0.105*z + 0.00042`."""
        powers = [f"*z^{power}" for power in range(self.degree, 1, -1)] + ["*z", ""]
        text = "y ="
        for value, power in zip(self.coefficients, powers, strict=True):
            sign = "−" if value < 0 else "+"
            first = text == "y ="
            text += f" {sign.replace('+', '')}" if first else f" {sign} "
            text += f"{abs(value):.3g}{power}"
        return text

    @property
    def scaling(self) -> str:
        """z by x: `z = (x − 0.001)/0.02`."""
        return f"z = (x {'+' if self.mu < 0 else '−'} {abs(self.mu):.3g})/{self.sigma:.3g}"

    @property
    def equation(self) -> str:
        """The fit as the paper prints it: polynomial, where scaling."""
        return f"{self.polynomial}, where {self.scaling}"


def polynomial_fits(
    x: Array, y: Array, degrees: Sequence[int] = DEGREES
) -> tuple[PolynomialFit, ...]:
    """Fit y by polynomials of z = (x − mean) / sd, of each degree that the points determine.

    A degree needs more distinct x than itself; constant x or y are fitted by none.
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return ()
    distinct = len(np.unique(x))
    mu, sigma = float(x.mean()), float(x.std(ddof=1))
    z = (x - mu) / sigma
    return tuple(_fit(z, y, degree, mu, sigma) for degree in degrees if degree < distinct)


def _fit(z: Array, y: Array, degree: int, mu: float, sigma: float) -> PolynomialFit:
    n, free = len(y), len(y) - degree - 1
    coefficients, rss = _least_squares(z, y, degree)
    _, rss_below = _least_squares(z, y, degree - 1)
    tss = float(((y - y.mean()) ** 2).sum())
    r2 = 1 - rss / tss
    f = p = NAN
    if free > 0 and rss > 0:
        f = max(rss_below - rss, 0.0) / (rss / free)
        p = float(stats.f.sf(f, 1, free))
    elif free > 0 and rss_below > 0:
        f, p = float("inf"), 0.0
    return PolynomialFit(
        degree=degree,
        mu=mu,
        sigma=sigma,
        coefficients=tuple(coefficients.tolist()),
        residual_norm=sqrt(rss),
        r2=r2,
        adjusted_r2=1 - (1 - r2) * (n - 1) / free if free > 0 else NAN,
        bic=n * (log(2 * pi * rss / n) + 1) + (degree + 1) * log(n) if rss > 0 else -float("inf"),
        f=f,
        p=p,
    )


def _least_squares(z: Array, y: Array, degree: int) -> tuple[Array, float]:
    powers = np.vander(z, degree + 1)  # (D, degree + 1), highest power first
    coefficients: Array = np.linalg.lstsq(powers, y, rcond=None)[0].astype(np.float64)
    rss = float(((y - powers @ coefficients) ** 2).sum())
    return coefficients, rss if rss > EXACT * float((y**2).sum()) else 0.0
