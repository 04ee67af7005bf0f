"""pycma's evolution strategy, driven by standard normal vectors that the caller supplies."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gfb_brevitas.samplers._coordinates import Coordinates, Matrix, Vector
from gfb_brevitas.samplers._state import CmaState

# pycma's smallest standard deviation of an integer coordinate, in steps.
_SMALLEST_STD_STEPS = 0.2
_FEWEST_POINTS = 3
_SILENT = -10  # also keeps pycma from reading options from a file in the working directory


class _SuppliedNormals:
    """Stands in for ``np.random.randn``: returns the rows that were put into it."""

    def __init__(self) -> None:
        self.rows: Matrix = np.empty((0, 0))

    def __call__(self, count: int, dimension: int) -> Matrix:
        return self.rows.reshape(count, dimension)


class Strategy:
    """One CMA-ES distribution and its updates; holds no random state of its own.

    Inside, coordinates are divided by their scales and unbounded (see :meth:`Coordinates.fold`). A
    search with one coordinate gets a second one without effect, because pycma needs two.

    Args:
        coordinates: The box to search.
        state: Where to start; its names are those of the coordinates.
        population_size: Number of draws per update.
    """

    def __init__(self, coordinates: Coordinates, state: CmaState, population_size: int) -> None:
        self.coordinates = coordinates
        self.population_size = population_size
        self.stop_reasons: tuple[str, ...] = ()
        self._normals = _SuppliedNormals()
        self._pad = 1 if len(coordinates) == 1 else 0
        self._scales = np.append(state.scales, np.ones(self._pad))
        self._es = self._start(state)
        self._root = self._symmetric_root()

    @property
    def dimension(self) -> int:
        """Length of the standard normal vectors."""
        return len(self._scales)

    @property
    def generation(self) -> int:
        """Number of updates."""
        return int(self._es.countiter)

    @property
    def smallest_update(self) -> int:
        """Fewest points that :meth:`update` takes: CMA-ES recombines that many of them."""
        return max(_FEWEST_POINTS, int(self._es.sp.weights.mu))

    def draw(self, normal: Vector) -> Vector:
        """The unbounded point, shape ``(n,)``, of a standard normal vector, shape ``(dimension,)``."""
        es = self._es
        scaled = es.mean + es.sigma * es.sigma_vec.scaling * (self._root @ normal)
        return self._cut(scaled * self._scales)

    def update(self, normals: Matrix, injected: Matrix, values: Vector) -> None:
        """Move the distribution.

        Args:
            normals: Shape ``(k, dimension)``; the vectors of draws from the present distribution.
            injected: Shape ``(m, n)``; unbounded points from elsewhere. They are moved towards the mean
                when they are implausibly far, and never enter the update with a negative weight.
            values: Shape ``(m + k,)``; finite, smaller is better; those of the injected points first.
        """
        es = self._es
        far = self._padded(injected) / self._scales
        es.inject([es.repair_genotype(x, copy_if_changed=True) for x in far], force=True)
        # pycma draws B D z; the symmetric root B D B' does not depend on the signs of eigenvectors,
        # which differ between linear algebra libraries.
        self._normals.rows = normals @ es.sm.B
        with _quiet_pycma():  # it warns of populations of another size
            es.tell(es.ask(len(values)), values.tolist())
            es.sm.update_now()
            self.stop_reasons = tuple(sorted(es.stop()))
        self._root = self._symmetric_root()

    @property
    def mean(self) -> Vector:
        """The unbounded mean; shape ``(n,)``."""
        return self._cut(self._es.mean * self._scales)

    def state(self) -> CmaState:
        """The distribution as plain numbers, with its mean on the unmirrored stretch of the folding."""
        es, coordinates = self._es, self.coordinates
        sign = np.where(coordinates.mirrored(self.mean), -1.0, 1.0)
        n = len(coordinates)
        return CmaState(
            names=coordinates.names,
            mean=coordinates.unrounded(coordinates.fold(self.mean)),
            step_size=float(es.sigma),
            scales=self._cut(self._scales * es.sigma_vec.scaling),
            covariance=es.sm.C[:n, :n] * np.outer(sign, sign),
            covariance_path=self._cut(es.pc) * sign,
            step_size_path=self._cut(es.adapt_sigma.ps) * sign,
            generation=self.generation,
            evaluations=int(es.countevals),
        )

    def _start(self, state: CmaState) -> Any:
        cma = _imported_pycma()
        from cma.utilities.utils import ElapsedWCTime

        n = self.dimension
        free = self.coordinates.unfold(self.coordinates.encode(state.parameters))
        with _quiet_pycma():
            es = cma.CMAEvolutionStrategy(
                self._padded(free) / self._scales, state.step_size, self._options(state)
            )
        es.sm.C = np.eye(n)
        es.sm.C[: n - self._pad, : n - self._pad] = state.covariance
        es.sm.update_now(-1)
        es.pc = self._padded(state.covariance_path)
        es.adapt_sigma.ps = self._padded(state.step_size_path)
        es.countiter, es.countevals = state.generation, state.evaluations
        es.mean_old, es.timer = es.mean.copy(), ElapsedWCTime()  # pycma makes them in generation 0 only
        return es

    def _options(self, state: CmaState) -> dict[str, Any]:
        from cma.sigma_adaptation import CMAAdaptSigmaCSA

        start = np.sqrt(state.variances)
        smallest = min(_SMALLEST_STD_STEPS, self.population_size / 4 / len(start)) * self.coordinates.steps
        return {
            "popsize": self.population_size,
            "randn": self._normals,
            "seed": math.nan,  # leaves numpy's global state alone
            "AdaptSigma": CMAAdaptSigmaCSA,
            "CMA_mirrors": 0,  # needs draws that depend on each other
            "conditioncov_alleviate": False,  # would move coordinates into a linear map of pycma's own
            "updatecovwait": 0,
            "CMA_teststds": self._padded(np.sqrt(np.diag(state.covariance)), 1.0),
            "minstd": self._padded(np.maximum(smallest, 1e-12 * start)) / self._scales,
            "maxstd": self._padded(np.maximum(self.coordinates.widths / 3, start), 1.0) / self._scales,
            "signals_filename": "",
            "verbose": _SILENT,
            "verb_disp": 0,
            "verb_log": 0,
        }

    def _symmetric_root(self) -> Matrix:
        sm = self._es.sm
        return np.asarray((sm.B * sm.D) @ sm.B.T)

    def _padded(self, points: Matrix | Vector, value: float = 0.0) -> Matrix:
        pad = [(0, 0)] * (points.ndim - 1) + [(0, self._pad)]
        return np.pad(points, pad, constant_values=value)

    def _cut(self, point: Vector | float) -> Vector:
        return np.broadcast_to(point, (self.dimension,))[: len(self.coordinates)].copy()


def _imported_pycma() -> Any:
    """Late: it takes a second, and draws in scipy and, where installed, Matplotlib."""
    with warnings.catch_warnings():
        # Of functions for pictures, which nothing here calls.
        warnings.filterwarnings("ignore", "Could not import matplotlib", UserWarning)
        return importlib.import_module("cma")


@contextmanager
def _quiet_pycma() -> Iterator[None]:
    """Silence pycma, whose verbosity is one for all of its users, and leave it as it was."""
    from cma.utilities import utils

    before, utils.global_verbosity = utils.global_verbosity, _SILENT
    try:
        yield
    finally:
        utils.global_verbosity = before


def default_population_size(dimension: int) -> int:
    """4 + floor(3 ln n), the usual choice for CMA-ES."""
    return 4 + math.floor(3 * math.log(dimension))
