from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gfb_brevitas.samplers._coordinates import Coordinates, is_searchable

SPACE = {
    "bits": FloatDistribution(0.0, 3.0),
    "far": FloatDistribution(1000.0, 1001.0),
    "rate": FloatDistribution(1e-7, 1.0, log=True),
    "half": FloatDistribution(-10.2, 10.2, step=0.1),
    "count": IntDistribution(3, 9, step=2),
    "size": IntDistribution(1, 100, log=True),
}
COORDINATES = Coordinates(SPACE)
FREE_POINTS = arrays(np.float64, len(SPACE), elements=st.floats(-3000, 3000))


def test_names_are_sorted_whatever_the_order_given() -> None:
    assert Coordinates(dict(reversed(SPACE.items()))).names == tuple(sorted(SPACE)) == COORDINATES.names


@given(FREE_POINTS)
def test_folded_points_lie_in_the_box_and_decode_to_valid_values(free: np.ndarray) -> None:
    point = COORDINATES.fold(free)
    assert np.all((COORDINATES.lower <= point) & (point <= COORDINATES.upper))
    for name, value in COORDINATES.decode(point).items():
        assert type(value) is (int if isinstance(SPACE[name], IntDistribution) else float)
        assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))


@given(FREE_POINTS)
def test_unfold_near_finds_the_point_itself(free: np.ndarray) -> None:
    point = COORDINATES.fold(free)
    again = COORDINATES.unfold_near(point, free)
    np.testing.assert_allclose(COORDINATES.fold(again), point, rtol=0, atol=1e-6)
    # Near a bound the folding is flat, so the way back loses half of the digits.
    np.testing.assert_allclose(again, free, rtol=0, atol=1e-3)


@given(FREE_POINTS)
def test_unfold_inverts_fold(free: np.ndarray) -> None:
    point = COORDINATES.fold(free)
    np.testing.assert_allclose(COORDINATES.fold(COORDINATES.unfold(point)), point, rtol=0, atol=1e-9)
    assert not np.any(COORDINATES.mirrored(COORDINATES.unfold(point)))


def test_folding_is_the_identity_away_from_the_bounds() -> None:
    for share in (0.051, 0.3, 0.949):
        point = COORDINATES.lower + share * COORDINATES.widths
        np.testing.assert_allclose(COORDINATES.fold(point), point, rtol=1e-12)


def test_folding_has_no_jumps_and_mirrors() -> None:
    line = Coordinates({"bits": SPACE["bits"]})
    free = np.linspace(-9, 9, 20001)[:, None]
    folded = line.fold(free)
    assert np.max(np.abs(np.diff(folded[:, 0]))) <= 1.001 * 18 / 20000
    beyond = line.fold(np.array([[3.15 + 0.4], [3.15 - 0.4]]))
    np.testing.assert_allclose(beyond[0], beyond[1])


def test_every_value_with_a_step_owns_a_cell_of_equal_width() -> None:
    counts = Coordinates({"count": SPACE["count"]})
    points = np.linspace(counts.lower[0], counts.upper[0], 4000, endpoint=False) + 1e-4
    values = [counts.decode(np.array([p]))["count"] for p in points]
    assert {v: values.count(v) for v in set(values)} == {3: 1000, 5: 1000, 7: 1000, 9: 1000}


@given(st.data())
def test_encode_inverts_decode(data: st.DataObject) -> None:
    parameters = {
        name: data.draw(
            st.integers(d.low, d.high).filter(lambda v, d=d: d._contains(v))
            if isinstance(d, IntDistribution)
            else st.floats(d.low, d.high)
        )
        for name, d in SPACE.items()
        if name != "half"
    }
    point = COORDINATES.encode({**parameters, "half": -10.2})
    decoded = COORDINATES.decode(point)
    assert decoded.pop("half") == -10.2
    assert decoded == pytest.approx(parameters, rel=1e-9)


def test_missing_names_take_the_default() -> None:
    default = (COORDINATES.lower + COORDINATES.upper) / 2
    point = COORDINATES.encode({"bits": 1.0}, default=default)
    assert point[COORDINATES.names.index("bits")] == 1.0
    others = [i for i, name in enumerate(COORDINATES.names) if name != "bits"]
    np.testing.assert_array_equal(point[others], default[others])


@pytest.mark.parametrize(
    "distribution, searchable",
    [
        (FloatDistribution(0, 1), True),
        (IntDistribution(1, 8), True),
        (FloatDistribution(1, 1), False),
        (CategoricalDistribution([1, 2]), False),
    ],
)
def test_is_searchable(distribution: object, searchable: bool) -> None:
    assert is_searchable(distribution) is searchable  # type: ignore[arg-type]
