"""World models that are known exactly, some with the optimum of what can be done in them."""

from typing import Any

import numpy as np
import torch
from scipy.linalg import solve_discrete_are

import loopwm as lw

State = tuple[torch.Tensor, ...]


def prediction(obs: Any, reward: Any, terminated: Any, **more: Any) -> lw.Prediction:
    rows = len(obs)
    return lw.Prediction(
        next_obs=obs,
        reward=reward,
        terminated=terminated,
        n_iters=more.pop("n_iters", np.ones(rows, int)),
        residual=np.zeros(rows),
        settled=more.pop("settled", np.ones(rows, bool)),
        **more,
    )


class CartPole:
    """The equations of CartPole-v1 (Barto, Sutton and Anderson 1983), semi-explicit Euler."""

    def start(self, obs: Any) -> State:
        return (torch.as_tensor(np.asarray(obs, np.float64)),)

    def observe(self, state: State, action: Any, obs: Any) -> State:
        return self.start(obs)

    def step(self, state: State, action: Any) -> tuple[State, lw.Prediction]:
        x, speed, angle, turn = state[0].numpy().T
        force = np.where(np.asarray(action) == 1, 10.0, -10.0)
        cos, sin = np.cos(angle), np.sin(angle)
        pull = (force + 0.05 * turn**2 * sin) / 1.1
        bend = (9.8 * sin - cos * pull) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
        push = pull - 0.05 * bend * cos / 1.1
        new = np.stack([x + 0.02 * speed, speed + 0.02 * push, angle + 0.02 * turn,
                        turn + 0.02 * bend], axis=1)  # fmt: skip
        over = (np.abs(new[:, 0]) > 2.4) | (np.abs(new[:, 2]) > 12 * 2 * np.pi / 360)
        return (torch.as_tensor(new),), prediction(new, np.ones(len(new)), over.astype(float))


class Point:
    """x' = x + a / 4, rewarded by -|x'|; terminates with a constant probability."""

    def __init__(self, ending: float = 0.0, **more: Any) -> None:
        self.ending, self.more = ending, more

    def start(self, obs: Any) -> State:
        return (torch.as_tensor(np.asarray(obs, np.float32)),)

    def observe(self, state: State, action: Any, obs: Any) -> State:
        return self.start(obs)

    def step(self, state: State, action: Any) -> tuple[State, lw.Prediction]:
        new = state[0] + torch.as_tensor(np.asarray(action, np.float32)) / 4
        more = {name: make(new.numpy()) for name, make in self.more.items()}
        obs = more.pop("next_obs", new)
        ending = torch.full((len(new),), self.ending)
        return (new,), prediction(obs, -new.abs().sum(1), ending, **more)


class DoubleIntegrator:
    """A mass that is pushed: position and speed, an action a, cost x'Qx + R a^2 at each step.

    Differentiable in torch. `solution` is the optimum over an infinite horizon by scipy.
    """

    dt, effort = 0.2, 0.1
    weights = torch.tensor([1.0, 0.1])

    def start(self, obs: Any) -> State:
        return (torch.as_tensor(np.asarray(obs, np.float32)),)

    def observe(self, state: State, action: Any, obs: Any) -> State:
        return self.start(obs)

    def step(self, state: State, action: Any) -> tuple[State, lw.Prediction]:
        place, speed = state[0].unbind(1)
        push = torch.as_tensor(action).float()[:, 0]
        new = torch.stack([place + self.dt * speed, speed + self.dt * push], dim=1)
        cost = (state[0].square() * self.weights).sum(1) + self.effort * push.square()
        return (new,), prediction(new, -cost, torch.zeros(len(new)))

    def solution(self) -> tuple[np.ndarray, np.ndarray]:
        """Return P and K: the optimal return from x is -x'Px, the optimal action -Kx."""
        a, b = np.array([[1, self.dt], [0, 1]]), np.array([[0], [self.dt]])
        q, r = np.diag(self.weights.numpy().astype(float)), np.array([[self.effort]])
        p = solve_discrete_are(a, b, q, r)
        return p, np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)


class Corridor:
    """Places 0..n-1, actions left, stay, right; each place has a reward, one ends the episode."""

    def __init__(self, rewards: list[float], ends: int | None = None) -> None:
        self.rewards, self.ends = torch.tensor(rewards), ends

    def start(self, obs: Any) -> State:
        return (torch.as_tensor(np.asarray(obs, np.float32)),)

    def observe(self, state: State, action: Any, obs: Any) -> State:
        return self.start(obs)

    def step(self, state: State, action: Any) -> tuple[State, lw.Prediction]:
        move = torch.as_tensor(action)[:, None] - 1
        new = (state[0] + move).clamp(0, len(self.rewards) - 1)
        reward = self.rewards[new[:, 0].long()]
        ends = torch.zeros(len(new)) if self.ends is None else (new[:, 0] == self.ends).float()
        return (new,), prediction(new, reward, ends)
