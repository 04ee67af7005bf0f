"""The search distribution of CMA-ES as plain numbers, with a JSON round trip."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.samplers._coordinates import Coordinates, Matrix, Vector

_FORMAT = "gfb_brevitas.CmaState"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class CmaState:
    """The normal distribution that CMA-ES draws from, and its memory.

    A draw is ``mean + step_size * scales * covariance^(1/2) * N(0, I)``, bent into the bounds. Units
    are those of the search: a parameter's own, or its natural logarithm where it is logarithmic.

    Example:
        >>> import optuna
        >>> from gfb_brevitas.samplers import CmaSampler, CmaState
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> space = {"v": optuna.distributions.FloatDistribution(0.0, 3.0)}
        >>> sampler = CmaSampler(search_space=space, step_size=0.5)
        >>> state = sampler.state(optuna.create_study(sampler=sampler))
        >>> state.parameters, state.standard_deviations
        ({'v': 1.5}, {'v': 0.5})
        >>> CmaState.from_json(state.to_json()).step_size
        0.5

    Attributes:
        names: Parameters, in the order of all arrays.
        mean: Shape ``(n,)``, in the parameters' own units, not rounded to steps.
        step_size: The factor common to all coordinates.
        scales: Shape ``(n,)``, the unit of each coordinate (all 1 when the sampler was given a step size).
        covariance: Shape ``(n, n)``, of the scaled coordinates, without the step size.
        covariance_path: Shape ``(n,)``, the evolution path of the covariance (pycma's ``pc``).
        step_size_path: Shape ``(n,)``, the evolution path of the step size (pycma's ``ps``).
        generation: Updates so far, those of earlier studies included.
        evaluations: Trials that took part in them.
    """

    names: tuple[str, ...]
    mean: Vector
    step_size: float
    scales: Vector
    covariance: Matrix
    covariance_path: Vector
    step_size_path: Vector
    generation: int = 0
    evaluations: int = 0

    def __post_init__(self) -> None:
        n = len(self.names)
        for name in ("mean", "scales", "covariance_path", "step_size_path"):
            self._freeze(name, (n,))
        self._freeze("covariance", (n, n))
        if not (0 < self.step_size < np.inf and np.all(self.scales > 0)):
            raise ConfigurationError(
                "The step size and scales of a CmaState must be positive; "
                f"got {self.step_size}, {self.scales}."
            )
        if n and not (
            np.allclose(self.covariance, self.covariance.T) and np.linalg.eigvalsh(self.covariance)[0] > 0
        ):
            raise ConfigurationError("The covariance of a CmaState must be symmetric and positive definite.")

    def _freeze(self, name: str, shape: tuple[int, ...]) -> None:
        array = np.array(getattr(self, name), dtype=np.float64)
        if array.shape != shape or not np.all(np.isfinite(array)):
            raise ConfigurationError(
                f"{name!r} of a CmaState with {len(self.names)} names must be finite numbers of shape "
                f"{shape}; got shape {array.shape}."
            )
        array.flags.writeable = False
        object.__setattr__(self, name, array)

    @property
    def parameters(self) -> dict[str, float]:
        """The mean by parameter name."""
        return dict(zip(self.names, self.mean.tolist(), strict=True))

    @property
    def variances(self) -> Vector:
        """Variance of each coordinate, step size included; shape ``(n,)``, squared search units."""
        return np.asarray((self.step_size * self.scales) ** 2 * np.diag(self.covariance))

    @property
    def standard_deviations(self) -> dict[str, float]:
        """Standard deviation of each coordinate by parameter name, in search units."""
        return dict(zip(self.names, np.sqrt(self.variances).tolist(), strict=True))

    @property
    def condition_number(self) -> float:
        """Ratio of the largest to the smallest eigenvalue of the covariance."""
        eigenvalues = np.linalg.eigvalsh(self.covariance)
        return float(eigenvalues[-1] / eigenvalues[0])

    def ordered(self, names: Sequence[str]) -> CmaState:
        """The same state with its coordinates in another order.

        Raises:
            ConfigurationError: If the names differ.
        """
        if set(names) != set(self.names):
            raise ConfigurationError(
                f"The distribution to carry over is of the parameters {sorted(self.names)}, but the search "
                f"is over {sorted(names)}."
            )
        order = [self.names.index(name) for name in names]
        return replace(
            self,
            names=tuple(names),
            mean=self.mean[order],
            scales=self.scales[order],
            covariance=self.covariance[np.ix_(order, order)],
            covariance_path=self.covariance_path[order],
            step_size_path=self.step_size_path[order],
        )

    def moved(self, *, mean: Mapping[str, float] | None, step_size: float | None) -> CmaState:
        """The same state with another mean (in the parameters' own units) or step size."""
        return replace(
            self,
            mean=self.mean if mean is None else np.array([mean[name] for name in self.names]),
            step_size=self.step_size if step_size is None else step_size,
        )

    def to_json(self) -> str:
        """A JSON text from which :meth:`from_json` makes an equal state, bit for bit."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in content.items()}
        return json.dumps({"format": _FORMAT, "version": _VERSION, **plain})

    @classmethod
    def from_json(cls, text: str) -> CmaState:
        """Read what :meth:`to_json` wrote.

        Raises:
            CheckpointError: If the text is anything else.
        """
        try:
            content = json.loads(text)
            if (content.pop("format"), content.pop("version")) != (_FORMAT, _VERSION):
                raise ValueError(f"it is not marked as {_FORMAT} version {_VERSION}")
            return cls(**{**content, "names": tuple(content["names"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"The text is not a state written by CmaState.to_json: {error}.") from error


def initial_state(coordinates: Coordinates, mean: Vector, step_size: float | None) -> CmaState:
    """Start of a search: uncorrelated, around a point of the box ``(n,)``.

    Without a step size every coordinate has a sixth of its width as standard deviation, which is the
    default of Optuna's own CMA-ES sampler.
    """
    n = len(coordinates)
    return CmaState(
        names=coordinates.names,
        mean=coordinates.unrounded(mean),
        step_size=1 / 6 if step_size is None else step_size,
        scales=coordinates.widths if step_size is None else np.ones(n),
        covariance=np.eye(n),
        covariance_path=np.zeros(n),
        step_size_path=np.zeros(n),
    )
