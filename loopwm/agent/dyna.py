"""Dyna: a soft actor-critic that practises in short imagined rollouts (MBPO, arXiv 1906.08253)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from loopwm.agent.config import Dyna
from loopwm.agent.imagination import ImaginationVectorEnv
from loopwm.agent.life import Step
from loopwm.agent.mixture import Mixture, Ring
from loopwm.agent.refits import Refits
from loopwm.agent.sac import actor_of
from loopwm.agent.soft import load_tensors, save_tensors, soft_actor_critic_for
from loopwm.data.actor import Actor, ActorInfo
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.errors import EnvironmentUnsupported
from loopwm.seed import key, torch_rng
from loopwm.world.ensemble import Ensemble
from loopwm.world.model import WorldModel


class DynaLearner:
    """Learn a policy from real steps, and from steps imagined between them.

    Args:
        config: How to learn.
        meta: Description of the environment.
        obs_dim: Number of observation dimensions.
        refits: The model.
        seed: Seed of what is drawn here. Stable-Baselines3 draws from torch's global generator,
            which is the caller's to seed.

    Raises:
        EnvironmentUnsupported: If the actions are not a bounded Box.
        MissingExtra: If Stable-Baselines3 is not installed.
    """

    def __init__(
        self, config: Dyna, meta: DatasetMeta, obs_dim: int, refits: Refits, seed: int
    ) -> None:
        if meta.action_low is None or meta.action_high is None:
            raise EnvironmentUnsupported(
                f"Dyna needs continuous actions, and those of {meta.env_id} are discrete; "
                "plan with lw.MPC instead"
            )
        bounds = [np.asarray(bound, np.float32) for bound in (meta.action_low, meta.action_high)]
        if not np.isfinite(bounds).all():
            raise EnvironmentUnsupported(
                f"bounds are needed to learn actions, and those of {meta.env_id} lie between "
                f"{meta.action_low} and {meta.action_high}: give it some by "
                "gymnasium.wrappers.TransformAction in a factory"
            )
        self.config, self.meta, self.refits, self.seed = config, meta, refits, seed
        self.low, self.high = bounds
        dims = obs_dim, len(self.low)
        self.sac = soft_actor_critic_for(config.learner, obs_dim, Box(self.low, self.high))
        kept = config.keep * config.refit.every * config.rollouts * config.horizon
        self.real = Ring(None, *dims)
        self.imagined = Ring(kept if config.imagines else 1, *dims)
        self.generator = torch_rng(seed, "dyna", "batch")
        self.sac.replay_buffer = Mixture(self.real, self.imagined, config.real_rows, self.generator)

    @property
    def ready(self) -> bool:
        """Say whether there are steps to learn from."""
        return self.real.size > 0

    @property
    def model(self) -> WorldModel | Ensemble | None:
        """Return the present model; None where nothing is imagined."""
        return self.refits.model

    def refit(self, data: RolloutDataset) -> dict[str, float | None]:
        """Take in the real steps up to the first refit, then fit the model and imagine anew."""
        if not self.real.size:
            self._remember(data)
        if not self.config.imagines:
            return {}
        record = self.refits.fit(data)
        return record | self._imagine(data)

    def begin(self) -> None:
        """Begin an episode; a policy remembers nothing of the last."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Draw an action from the policy."""
        action, _ = self.sac.predict(obs, deterministic=False)
        return np.clip(action, self.low, self.high)

    def learn(self, step: Step | None) -> None:
        """Take in a real step and make the updates that are due after it."""
        if step is not None:
            one = np.array([step.reward]), step.next_obs[None], np.array([step.terminated])
            self._add(self.real, step.obs[None], step.action[None], *one)
        learner = self.config.learner
        self.sac.train(learner.updates, learner.batch_size)

    def policy(self) -> Actor:
        """Return the deterministic policy."""
        info = ActorInfo(self.meta.env_id, self.seed, "late", 0, 0.0, 0.0, 0, self.meta.unclipped)
        return actor_of(self.sac, info)

    def save(self, folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
        """Return tensors and JSON values of everything that changes; write the model."""
        tensors = {
            "policy": save_tensors(self.sac),
            "imagined": self.imagined.state(),
            "batches": {"generator": self.generator.get_state().numpy()},
        }
        counters = self.refits.save(folder / "model")
        return tensors, {"refits": counters, "place": self.imagined.place}

    def restore(
        self,
        folder: Path,
        tensors: dict[str, dict[str, np.ndarray]],
        document: dict[str, Any],
        data: RolloutDataset,
    ) -> None:
        """Continue from what `save` returned and wrote."""
        self.refits.restore(folder / "model", document["refits"])
        load_tensors(self.sac, tensors["policy"])
        self.imagined.restore(tensors["imagined"], document["place"])
        self.generator.set_state(torch.from_numpy(tensors["batches"]["generator"]))
        self._remember(data)

    def _remember(self, data: RolloutDataset) -> None:
        self._add(self.real, data.obs, data.action, data.reward, data.next_obs, data.terminated)

    def _imagine(self, data: RolloutDataset) -> dict[str, float | None]:
        """Branch rollouts off real states; each member imagines its share of them.

        Steps whose prediction is not finite are counted and left out.
        """
        model = self.refits.model
        assert model is not None
        members = model.members if isinstance(model, Ensemble) else [model]
        count = self.config.rollouts * self.config.refit.every
        rewards, ends, failed = [], [], []
        for index, member in enumerate(members):
            share = len(range(index, count, len(members)))
            if share == 0:
                continue
            envs = ImaginationVectorEnv(
                member, data, share, self.config.horizon, autoreset_mode=AutoresetMode.SAME_STEP
            )
            word = key(self.seed, "dyna", "imagine", self.refits.count, index).generate_state(1)
            obs, _ = envs.reset(seed=int(word[0]))
            for _ in range(self.config.horizon):
                action = self.act(obs)
                following, reward, terminated, truncated, info = envs.step(action)
                over = terminated | truncated
                after = following.copy()
                if over.any():
                    after[over] = info["final_obs"][over]
                sound = ~info["broken"]
                rows = (obs, action, reward, after, terminated)
                self._add(self.imagined, *(each[sound] for each in rows))
                rewards.append(reward[sound])
                ends.append(terminated[sound])
                failed.append(info["broken"])
                obs = following
        shares = {"imagined_reward": rewards, "imagined_ends": ends, "imagined_broken": failed}
        return {name: _mean(np.concatenate(each)) for name, each in shares.items()}

    def _add(
        self,
        ring: Ring,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_obs: np.ndarray,
        terminated: np.ndarray,
    ) -> None:
        scaled = 2 * (action - self.low) / (self.high - self.low) - 1
        ring.add(obs, scaled, reward, next_obs, terminated)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
