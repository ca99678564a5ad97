"""A learned world model as a Gymnasium vector environment: one batched call a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float
from numpy import ndarray

from loopwm.core.halt import Fixed, StopRule
from loopwm.core.settings import whole
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError
from loopwm.world.config import Feedback
from loopwm.world.prediction import Prediction
from loopwm.world.protocol import WorldModelLike


@dataclass(frozen=True)
class Caution:
    """Say what is made of steps that the model itself is unsure of.

    Uncertainty is an ensemble's disagreement: the standard deviation of the next observation over
    its members, root mean square over dimensions, each in the training data's standard deviations.

    Args:
        penalty: Taken off the reward for each unit of uncertainty, at least 0 (MOPO, arXiv
            2005.13239, eq. 6, with disagreement as its error estimate).
        limit: Uncertainty above which an episode is truncated, above 0; None never does.
        unsettled: Whether a step whose loop had not settled truncates the episode.
    """

    penalty: float = 0.0
    limit: float | None = None
    unsettled: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If one is out of range.
        """
        if not 0 <= self.penalty < np.inf:
            raise ConfigError(f"Caution.penalty must be at least 0, got {self.penalty}")
        if self.limit is not None and not self.limit > 0:
            raise ConfigError(f"Caution.limit must be above 0 or None, got {self.limit}")

    @property
    def needs_disagreement(self) -> bool:
        """Say whether only an ensemble can be treated so."""
        return self.penalty > 0 or self.limit is not None


class ImaginationVectorEnv(VectorEnv):
    """Step any number of imagined environments together.

    Episodes begin at observations drawn from `starts`, terminate as the model predicts, and are
    truncated after `horizon` steps. A prediction that is not finite truncates its episode too, at
    the observation before it and with reward 0; it is `broken`, and nothing to learn from. `info`
    holds arrays [num_envs] under `iterations`, `settled`, `broken` and, for an ensemble,
    `disagreement`, each with its mask `_name`; rows that were just begun anew hold zeros. Autoreset
    in the same step adds `final_obs` and `final_info`.

    Args:
        model: Anything with the verbs start, observe and step; functions given by `model.use`
            replace the heads for reward and termination.
        starts: Where episodes begin: every row of a dataset (branched rollouts, as in MBPO, arXiv
            1906.08253), or observations [N, O].
        num_envs: Number of environments.
        horizon: Steps after which episodes are truncated, at least 1.
        threshold: Predicted probability from which on an episode terminates, in (0, 1]; None draws
            the termination from the probability, with the environment's generator.
        caution: What is made of steps that the model is unsure of.
        autoreset_mode: How ended episodes begin anew, as Gymnasium defines it.
        action_space: The space of one action, where neither the dataset nor the model tells it.
        halt: Stop rule of the loop, passed to `model.step` if given.
        max_iters: Most iterations, passed to `model.step` if given.
        feedback: What the model's next step sees, passed to `model.step` if given.

    Raises:
        ConfigError: If an argument is out of range, or the action space is not known.
        DataError: If there is no start, or one is not finite.
    """

    def __init__(  # noqa: PLR0913 - a simulator's settings, all but two of them optional
        self,
        model: WorldModelLike,
        starts: RolloutDataset | Float[ndarray, "N O"],
        num_envs: int = 1,
        horizon: int = 15,
        *,
        threshold: float | None = None,
        caution: Caution = Caution(),
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        action_space: gym.Space[Any] | None = None,
        halt: Fixed | StopRule | None = None,
        max_iters: int | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        for name, count in (("num_envs", num_envs), ("horizon", horizon)):
            if whole(name, count) < 1:
                raise ConfigError(f"{name} must be at least 1, got {count}")
        if not isinstance(model, WorldModelLike):
            raise ConfigError(
                "model must have the verbs start, observe and step, got "
                f"{type(model).__name__}; read a saved one by lw.load(path)"
            )
        if threshold is not None and not 0 < threshold <= 1:
            raise ConfigError(f"threshold must lie in (0, 1], or be None, got {threshold}")
        self.model, self.horizon, self.threshold, self.caution = model, horizon, threshold, caution
        self.starts = _observations(starts)
        self.metadata = {"autoreset_mode": AutoresetMode(autoreset_mode)}
        self.num_envs = num_envs
        self.single_observation_space = Box(
            -np.inf, np.inf, self.starts.shape[1:], self.starts.dtype.type
        )
        meta = starts.meta if isinstance(starts, RolloutDataset) else getattr(model, "meta", None)
        self.single_action_space = action_space or action_space_of(meta)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        options = {"halt": halt, "max_iters": max_iters, "feedback": feedback}
        self._options = {name: each for name, each in options.items() if each is not None}
        stats = getattr(model, "stats", None)
        self._unit = 1.0 if stats is None else stats.obs_std
        self._obs = np.zeros((num_envs, *self.starts.shape[1:]), self.starts.dtype)
        self._steps = np.zeros(num_envs, np.int64)
        self._over = np.ones(num_envs, bool)
        self._state: tuple[torch.Tensor, ...] | None = None

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """Return how ended episodes begin anew; under this name, too, some clients look for it."""
        return self.metadata["autoreset_mode"]

    def reset(
        self, *, seed: int | list[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[ndarray, dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: Seeds the generator that draws starts and terminations.
            options: `reset_mask` [num_envs] begins only some anew; `obs` gives the first
                observations of those that begin, instead of drawing them.

        Returns:
            Observations [num_envs, O], and an empty info.
        """
        if seed is not None:
            self._np_random = np.random.Generator(np.random.PCG64(seed))
            self._np_random_seed = seed if isinstance(seed, int) else -1
        options = options or {}
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ConfigError(
                f"reset_mask must hold {self.num_envs} booleans, one of them True, got {mask!r}"
            )
        if self._state is None and not mask.all():
            raise ConfigError("reset_mask can leave environments out only after a first reset")
        self._begin(mask, options.get("obs"))
        return self._obs.copy(), {}

    def step(
        self, actions: Any
    ) -> tuple[ndarray, ndarray, Bool[ndarray, " N"], Bool[ndarray, " N"], dict[str, Any]]:
        """Imagine one step of every environment.

        Args:
            actions: Actions [num_envs, A], or indices [num_envs].

        Returns:
            Observations, rewards (float64), terminated, truncated, info.

        Raises:
            ConfigError: Before the first reset; with autoreset disabled, also where an episode
                is over.
            DataError: If the actions have another shape.
        """
        mode = self.metadata["autoreset_mode"]
        if self._state is None:
            raise ConfigError("call reset before step")
        if mode == AutoresetMode.DISABLED and self._over.any():
            raise ConfigError(
                f"the episodes of environments {np.flatnonzero(self._over).tolist()} are over: "
                'call reset(options={"reset_mask": mask}) first'
            )
        actions, shape = np.asarray(actions), self.action_space.shape
        if actions.shape != shape:
            raise DataError(f"actions must have the shape {shape}, got {actions.shape}")
        with torch.no_grad():
            self._state, predicted = self.model.step(self._state, actions, **self._options)
        obs, reward, terminated, truncated, info = self._judge(predicted)
        self._steps += 1
        truncated |= self._steps >= self.horizon
        again = self._over if mode == AutoresetMode.NEXT_STEP else np.zeros_like(self._over)
        if again.any():
            # This step only begins these anew: what the model made of them counts for nothing.
            reward[again], terminated[again], truncated[again] = 0.0, False, False
            info = {name: each * ~again for name, each in info.items()}
        self._obs, self._over = obs, terminated | truncated
        if mode == AutoresetMode.SAME_STEP and self._over.any():
            again = self._over
            ended = again.copy()
            final = {name: ended if name[0] == "_" else each for name, each in info.items()}
            info |= {"final_obs": obs.copy(), "final_info": final}
            info |= {"_final_obs": ended, "_final_info": ended}
        if again.any():
            self._begin(again.copy(), None)
        return self._obs.copy(), reward, terminated, truncated, info

    def _judge(self, predicted: Prediction) -> tuple[ndarray, ndarray, ndarray, ndarray, dict]:
        """Return what a prediction means for each environment."""
        obs = _array(predicted.next_obs).astype(self._obs.dtype)
        reward = _array(predicted.reward).astype(np.float64)
        ending = _array(predicted.terminated).astype(np.float64)
        if ((ending < -1e-6) | (ending > 1 + 1e-6)).any():
            raise DataError(
                f"terminated must be a probability, got {ending.min():.4g} to {ending.max():.4g}: "
                "of logits, a termination_fn returns the sigmoid"
            )
        settled = _array(predicted.settled).astype(bool)
        info: dict[str, Any] = {"iterations": _array(predicted.n_iters), "settled": settled}
        truncated = ~settled if self.caution.unsettled else np.zeros(self.num_envs, bool)
        if predicted.disagreement is not None:
            unsure = _array(predicted.disagreement) / self._unit
            info["disagreement"] = unsure = np.sqrt(np.square(unsure).mean(axis=1))
            reward -= self.caution.penalty * unsure
            if self.caution.limit is not None:
                truncated |= unsure > self.caution.limit
        elif self.caution.needs_disagreement:
            raise ConfigError(
                f"{self.caution} needs an ensemble: train one with lw.fit(..., members=5)"
            )
        broken = ~(np.isfinite(obs).all(axis=1) & np.isfinite(reward) & np.isfinite(ending))
        info["broken"] = broken
        info |= {f"_{name}": np.ones(self.num_envs, bool) for name in tuple(info)}
        # Drawn for every environment at every step, so that none depends on another's fate.
        draw = self.np_random.random(self.num_envs)
        terminated = ending >= self.threshold if self.threshold is not None else draw < ending
        obs[broken], reward[broken], terminated[broken] = self._obs[broken], 0.0, False
        return obs, reward, terminated, truncated | broken, info

    def _begin(self, mask: Bool[ndarray, " N"], obs: Any) -> None:
        count = int(mask.sum())
        if obs is None:
            obs = self.starts[self.np_random.integers(len(self.starts), size=count)]
        obs = np.asarray(obs, self._obs.dtype)
        if obs.shape != (count, *self._obs.shape[1:]):
            raise DataError(
                f'options["obs"] must have the shape {(count, *self._obs.shape[1:])}, '
                f"got {obs.shape}"
            )
        with torch.no_grad():
            # First: where it refuses the observations, nothing has changed.
            fresh = self.model.start(obs)
        self._obs[mask], self._steps[mask], self._over[mask] = obs, 0, False
        if self._state is None:
            self._state = fresh
            return
        rows = torch.as_tensor(np.flatnonzero(mask), device=fresh[0].device)
        self._state = tuple(
            ours.index_copy(0, rows, theirs)
            for ours, theirs in zip(self._state, fresh, strict=True)
        )


def action_space_of(meta: DatasetMeta | None) -> gym.Space[Any]:
    """Return the space of one action of the environment that data comes from.

    Raises:
        ConfigError: If the data does not tell it.
    """
    if meta is not None and meta.num_actions is not None:
        return Discrete(meta.num_actions)
    if meta is None or meta.action_low is None or meta.action_high is None:
        raise ConfigError("the bounds of the actions are not known: pass action_space=")
    low, high = (np.asarray(bound, np.float32) for bound in (meta.action_low, meta.action_high))
    return Box(low, high, dtype=np.float32)


def _array(values: Any) -> ndarray:
    """Return what a model gave as numpy; models of one's own may give tensors."""
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _observations(starts: RolloutDataset | ndarray) -> Float[ndarray, "N O"]:
    obs = np.asarray(starts.obs if isinstance(starts, RolloutDataset) else starts)
    if obs.ndim != 2 or not len(obs):
        raise DataError(f"starts must be observations [N, O], at least one, got shape {obs.shape}")
    if not np.isfinite(obs).all():
        raise DataError("starts hold NaN or infinite values; episodes begin at finite ones")
    return obs if obs.dtype.kind == "f" else obs.astype(np.float32)
