"""A learned world model as one Gymnasium environment."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Float
from numpy import ndarray

from loopwm.agent.imagination import ImaginationVectorEnv
from loopwm.data.store import RolloutDataset
from loopwm.world.protocol import WorldModelLike


class ImaginationEnv(gym.Env[ndarray, Any]):
    """Step one imagined environment: `ImaginationVectorEnv` with a single row.

    Args:
        model: Anything with the verbs start, observe and step.
        starts: Where episodes begin: every row of a dataset, or observations [N, O].
        horizon: Steps after which an episode is truncated, at least 1.
        render_mode: None; imagined observations are drawn by `loopwm imagine`.
        options: The settings of `ImaginationVectorEnv`, but for num_envs and autoreset_mode.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        model: WorldModelLike,
        starts: "RolloutDataset | Float[ndarray, 'N O']",
        horizon: int = 200,
        render_mode: None = None,
        **options: Any,
    ) -> None:
        self.render_mode = render_mode
        mode = AutoresetMode.DISABLED
        self._rows = ImaginationVectorEnv(model, starts, 1, horizon, autoreset_mode=mode, **options)
        self.observation_space = self._rows.single_observation_space
        self.action_space = self._rows.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ndarray, dict[str, Any]]:
        """Begin an episode; `options={"obs": obs}` [O] says where."""
        super().reset(seed=seed)
        given = (options or {}).get("obs")
        rows = None if given is None else {"obs": np.asarray(given)[None]}
        obs, _ = self._rows.reset(seed=seed, options=rows)
        return obs[0], {}

    def step(self, action: Any) -> tuple[ndarray, float, bool, bool, dict[str, Any]]:
        """Imagine one step under an action [A] or an index."""
        obs, reward, terminated, truncated, info = self._rows.step(np.asarray(action)[None])
        single = {name: each[0] for name, each in info.items() if not name.startswith("_")}
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), single
