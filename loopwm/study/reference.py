"""What any model must beat: that nothing changes, and a linear model."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.world.prediction import Prediction

State = tuple[Tensor, ...]
# Rows of experience that are regressed at a time.
_BLOCK = 8_192


class CopyLast:
    """Predict that nothing changes: the last observation seen, the mean reward, no end.

    It has the verbs of a world model.
    """

    def __init__(self, stats: Statistics) -> None:
        """Take the mean reward from the statistics of the training set."""
        self.stats = stats

    def start(self, obs: Float[Tensor, "B O"]) -> State:
        """Begin at a real observation."""
        return (obs,)

    def observe(
        self, state: State, action: Shaped[Tensor, "B ..."], obs: Float[Tensor, "B O"]
    ) -> State:
        """Take in a real next observation."""
        return (obs,)

    def step(self, state: State, action: Shaped[Tensor, "B ..."]) -> tuple[State, Prediction]:
        """Repeat the observation."""
        obs = state[0]
        reward = torch.full_like(obs[:, 0], float(self.stats.reward_mean))
        return state, _forecast(obs, reward, torch.zeros_like(reward))


class Linear(nn.Module):
    """Predict change, reward and termination by ridge regression on observation and action.

    It has the verbs of a world model and computes in float64.
    """

    weight: Tensor

    def __init__(
        self,
        weight: Float[Tensor, "F P"],
        stats: Statistics,
        num_actions: int | None = None,
        angles: tuple[int, ...] = (),
    ) -> None:
        """Hold the solved regression; `fit_linear` solves it.

        Args:
            weight: Coefficients: inputs (observation, its angles as
                sine and cosine at the end, action, one) to outputs (change, reward,
                termination), in environment units.
            stats: Statistics of the training set.
            num_actions: Number of discrete actions, or None for continuous ones.
            angles: Observation dimensions seen as sine and cosine.
        """
        super().__init__()
        self.register_buffer("weight", weight.double())
        self.stats = stats
        self.num_actions = num_actions
        self.angles = angles

    @property
    def num_parameters(self) -> int:
        """Number of coefficients."""
        return self.weight.numel()

    def start(self, obs: Float[Tensor, "B O"]) -> State:
        """Begin at a real observation."""
        return (obs,)

    def observe(
        self, state: State, action: Shaped[Tensor, "B ..."], obs: Float[Tensor, "B O"]
    ) -> State:
        """Take in a real next observation."""
        return (obs,)

    def step(self, state: State, action: Shaped[Tensor, "B ..."]) -> tuple[State, Prediction]:
        """Apply the regression to the state's observation and the action."""
        obs = state[0].double()
        out = _inputs(obs, action, self.num_actions, self.angles) @ self.weight
        following = obs + out[:, :-2]
        forecast = _forecast(following, out[:, -2], out[:, -1].clamp(0, 1))
        return (following,), forecast


def fit_linear(dataset: RolloutDataset, ridge: float = 1e-8) -> Linear:
    """Fit a linear model to all rows of a dataset.

    Args:
        dataset: The experience.
        ridge: Penalty on standardised coefficients, relative to the number of rows, at least 0.
    """
    num_actions = dataset.action_dim if dataset.discrete else None
    angles = dataset.meta.angles

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        """Give inputs and targets, few rows at a time: each is wider than what it is made of."""
        for first in range(0, len(dataset), _BLOCK):
            rows = slice(first, first + _BLOCK)
            obs = torch.as_tensor(dataset.obs[rows], dtype=torch.float64)
            action = torch.as_tensor(dataset.action[rows])
            change = torch.as_tensor(dataset.next_obs[rows], dtype=torch.float64) - obs
            others = (dataset.reward[rows], dataset.terminated[rows])
            outcome = [torch.as_tensor(each, dtype=torch.float64)[:, None] for each in others]
            yield _inputs(obs, action, num_actions, angles), torch.cat([change, *outcome], dim=1)

    # Standardising the inputs makes one penalty fit all of them; the constant is not penalised.
    mean = sum(inputs.sum(0) for inputs, _ in blocks()) / len(dataset)
    assert isinstance(mean, Tensor)
    spread = sum((inputs - mean).square().sum(0) for inputs, _ in blocks())
    std = torch.as_tensor(spread / max(1, len(dataset) - 1)).sqrt()
    mean[-1], std[-1] = 0.0, 1.0
    std = torch.where(std > 0, std, 1.0)
    products: list[Tensor | float] = [0.0, 0.0]
    for inputs, targets in blocks():
        scaled = (inputs - mean) / std
        products[0] += scaled.T @ scaled
        products[1] += scaled.T @ targets
    gram, moment = map(torch.as_tensor, products)
    penalty = ridge * len(dataset) * torch.eye(len(gram), dtype=torch.float64)
    penalty[-1, -1] = 0.0
    weight = torch.linalg.solve(gram + penalty, moment)
    weight = weight / std[:, None]
    weight[-1] -= mean @ weight
    return Linear(weight, Statistics.of(dataset), num_actions, dataset.meta.angles)


def _inputs(
    obs: Float[Tensor, "B O"],
    action: Shaped[Tensor, "B ..."],
    num_actions: int | None,
    angles: tuple[int, ...],
) -> Float[Tensor, "B F"]:
    if num_actions is not None:
        action = nn.functional.one_hot(action.long(), num_actions)
    straight = [place for place in range(obs.shape[1]) if place not in angles]
    angle = obs[:, list(angles)]
    seen = [obs[:, straight], angle.sin(), angle.cos()]
    one = torch.ones_like(obs[:, :1])
    return torch.cat([*seen, action.to(obs.dtype), one], dim=1)


def _forecast(
    obs: Float[Tensor, "B O"], reward: Float[Tensor, " B"], terminated: Float[Tensor, " B"]
) -> Prediction:
    return Prediction(
        next_obs=obs,
        reward=reward,
        terminated=terminated,
        n_iters=torch.ones(len(obs), dtype=torch.int64, device=obs.device),
        residual=torch.zeros_like(reward),
        settled=torch.ones(len(obs), dtype=torch.bool, device=obs.device),
    )
