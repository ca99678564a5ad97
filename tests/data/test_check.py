"""A description that its columns contradict is refused by the name of the field."""

from typing import Any

import numpy as np
import pytest

from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError


def described(**fields: Any) -> DatasetMeta:
    rows = np.zeros((4, 3))
    data = RolloutDataset.from_arrays(
        obs=rows,
        next_obs=rows,
        action=np.zeros((4, 1)),
        reward=np.zeros(4),
        terminated=np.zeros(4, bool),
        truncated=np.arange(4) == 3,
        meta=DatasetMeta(**fields),
    )
    return data.meta


@pytest.mark.parametrize("dt", [0, -1, np.nan, np.inf, "0.05", True])
@pytest.mark.usefixtures("without_shape_checks")
def test_seconds_per_step_must_be_positive_and_finite(dt: Any) -> None:
    with pytest.raises(DataError, match=r"meta\.dt must be seconds"):
        described(dt=dt)


@pytest.mark.parametrize("dt", [None, 1, 0.05, np.float32(0.5)])
@pytest.mark.usefixtures("without_shape_checks")
def test_seconds_per_step_may_be_any_number_that_passes_time(dt: Any) -> None:
    assert described(dt=dt).dt == dt


@pytest.mark.parametrize("names", [(), ("a", "b"), ("a", "b", "c", "d")])
def test_observations_must_have_as_many_names_as_dimensions(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=rf"meta\.obs_names has {len(names)} names .* 3 dim"):
        described(obs_names=names)
    assert described(obs_names=("a", "b", "c")).obs_names == ("a", "b", "c")
