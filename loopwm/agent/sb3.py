"""Imagined environments as a vector environment of Stable-Baselines3, which has its own kind."""

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode

from loopwm.agent.imagination import ImaginationVectorEnv
from loopwm.errors import ConfigError, require

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv
else:
    VecEnv = require("stable_baselines3.common.vec_env", "agent").VecEnv

_TOLD = ("iterations", "settled", "broken", "disagreement")


class ImaginedVecEnv(VecEnv):
    """Step imagined environments for an algorithm of Stable-Baselines3.

    A step whose prediction was not finite reaches the algorithm like any other, as a truncation at
    the observation before it with reward 0, for the algorithm takes no fewer rows than there are
    environments. `infos[i]["broken"]` tells of it, for a callback to count or to stop at.

    Args:
        envs: Environments that begin ended episodes anew in the same step
            (`autoreset_mode=AutoresetMode.SAME_STEP`), as Stable-Baselines3 expects.

    Raises:
        ConfigError: If they begin them at another time.
    """

    def __init__(self, envs: ImaginationVectorEnv) -> None:
        mode = envs.metadata["autoreset_mode"]
        if mode != AutoresetMode.SAME_STEP:
            raise ConfigError(
                "Stable-Baselines3 expects autoreset_mode=AutoresetMode.SAME_STEP, the "
                f"environments have {mode}"
            )
        self.envs = envs
        self.render_mode = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._actions: Any = None

    def reset(self) -> np.ndarray:
        """Begin all episodes; a seed given to `seed` is used once."""
        obs, _ = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Imagine one step of every environment."""
        obs, reward, terminated, truncated, info = self.envs.step(self._actions)
        told = [name for name in _TOLD if name in info]
        infos: list[dict[str, Any]] = [
            {name: info[name][row] for name in told} for row in range(self.num_envs)
        ]
        done = terminated | truncated
        for row in np.flatnonzero(done).tolist():
            infos[row]["terminal_observation"] = info["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the environments, which share all of them, once for each."""
        source = self if attr_name == "render_mode" else self.envs
        return [getattr(source, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all environments."""
        self._refuse_some(indices)
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
        """Call a method of all environments, once."""
        self._refuse_some(indices)
        return [getattr(self.envs, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Say that no environment is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _refuse_some(self, indices: Any) -> None:
        if len(list(self._get_indices(indices))) < self.num_envs:
            raise ConfigError("imagined environments are stepped as one: leave indices out")
