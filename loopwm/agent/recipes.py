"""Settings for some of the environments of Gymnasium."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args

from loopwm.agent.config import (
    MPC,
    Algorithm,
    Dyna,
    Planning,
    Refit,
    SoftActorCritic,
    TerminalValue,
)
from loopwm.core.depth import Poisson
from loopwm.data.excitation import Excitation, OpenLoop, OrnsteinUhlenbeck, Sines, Uniform
from loopwm.errors import ConfigError, remedy
from loopwm.train.config import FitConfig
from loopwm.world.config import MLP, WorldConfig
from loopwm.world.terms import Objective

_EXCITATIONS = (Excitation, OrnsteinUhlenbeck, Sines, Uniform)
Name = Literal["mpc", "dyna"]
Variant = Literal["looped", "mlp", "real", "sac"]


@dataclass(frozen=True)
class Recipe:
    """Say how an environment is learned.

    Attributes:
        algorithm: With its settings.
        steps: Real steps that it is given.
        target: Mean return that it is held against.
        episodes: Episodes of each evaluation.
        unclipped: Whether velocities are observed as simulated.
        chosen_on: Seed that the settings were chosen on.
        every: Real steps between evaluations; None takes an eighth of all.
    """

    algorithm: Algorithm
    steps: int
    target: float
    episodes: int = 10
    unclipped: bool = False
    # Runs are named by how the recipe reads, and do not depend on these.
    chosen_on: int = field(default=0, repr=False)
    every: int | None = field(default=None, repr=False)


_MOVING = Refit(
    model=WorldConfig(width=32, depth=Poisson(4), objective=Objective(reward=1.0)),
    fit=FitConfig(updates=2_000, lr=5e-3, horizon=3, progress=False),
    updates=500,
    first=1_000,
    every=250,
)
_MOVER = SoftActorCritic(updates=10, batch_size=128, layer_norm=True)

_REACHING = MPC(
    refit=Refit(
        # A reach is worth about .02 a step, so the reward is learned as well as the motion, from
        # actions that are mild: of wilder ones, the cost of the actions is all that is seen.
        model=WorldConfig(width=32, depth=Poisson(4), objective=Objective(reward=1.0)),
        fit=FitConfig(updates=2_500, lr=5e-3, horizon=3, progress=False),
        updates=600,
        excitation=OrnsteinUhlenbeck(sigma=0.1),
    ),
    planning=Planning(horizon=15),
)

RECIPES: Mapping[str, Recipe] = {
    "InvertedPendulum-v5": Recipe(
        # A balance is worth a long life; its value has to be known soon.
        Dyna(learner=SoftActorCritic(updates=20, batch_size=128, target_rate=0.01)),
        steps=2_000,
        target=950,
    ),
    "Pendulum-v1": Recipe(Dyna(), steps=2_000, target=-200, episodes=50),
    "CartPole-v1": Recipe(
        # The value knows the edge of the track, so a short look ahead does.
        MPC(planning=Planning(horizon=10, candidates=32, iterations=2), value=TerminalValue()),
        steps=3_000,
        target=475,
    ),
    "Reacher-v5": Recipe(_REACHING, steps=5_000, target=-6, episodes=50, chosen_on=1),
    "HalfCheetah-v5": Recipe(
        # Held to the entropy that is usual, minus six, it settles on a slow gait (1,700).
        Dyna(_MOVING, replace(_MOVER, target_entropy=-3.0)),
        steps=20_000,
        target=2_000,
        episodes=5,
        every=1_000,
    ),
    "Hopper-v5": Recipe(
        # A fall is worth the rest of a long life, which a discount of .99 does not see.
        Dyna(_MOVING, replace(_MOVER, discount=0.997, target_entropy=-1.0)),
        steps=15_000,
        target=1_000,
        episodes=5,
        unclipped=True,
        every=1_000,
    ),
}


def algorithm_for(env_id: str, name: Name | None = None) -> Algorithm:
    """Return the settings for an environment, or the defaults where none were chosen.

    Args:
        env_id: Gymnasium id.
        name: "mpc" or "dyna"; None takes what the environment's recipe has, or planning.
    """
    recipe = recipe_for(env_id, name)
    if recipe is not None:
        return recipe.algorithm
    return Dyna() if name == "dyna" else MPC()


def recipe_for(env_id: str, name: Name | None = None) -> Recipe | None:
    """Return what was chosen for an environment, None where nothing was for this algorithm.

    Args:
        env_id: Gymnasium id.
        name: "mpc" or "dyna"; None takes either.
    """
    recipe = RECIPES.get(env_id)
    kinds: Any = {"mpc": MPC, "dyna": Dyna, None: MPC | Dyna}[name]
    return recipe if recipe is not None and isinstance(recipe.algorithm, kinds) else None


def variant_of(algorithm: Algorithm, variant: Variant) -> Algorithm:
    """Return what an agent is held against.

    Args:
        algorithm: The agent.
        variant: "looped" is the agent itself; "mlp" has an ensemble of perceptrons of several times
            the parameters for a model; "real" imagines nothing and makes as many updates; "sac" is
            Stable-Baselines3's soft actor-critic as it comes, one update for each step.

    Raises:
        ConfigError: If the agent has no such variant.
    """
    if variant == "looped":
        return algorithm
    if variant == "mlp":
        model = MLP(width=128, depth=3, objective=algorithm.refit.model.objective)
        return replace(algorithm, refit=replace(algorithm.refit, model=model, members=4))
    if variant not in ("real", "sac") or isinstance(algorithm, MPC):
        raise ConfigError(f"{type(algorithm).__name__} has no variant {variant!r}")
    if variant == "real":
        return replace(algorithm, real_share=1.0)
    usual = SoftActorCritic(
        updates=1, lr=3e-4, entropy_weight=1.0, actor=(256, 256), critic=(256, 256)
    )
    return replace(algorithm, real_share=1.0, learner=usual)


def with_settings(config: Any, settings: Mapping[str, Any], place: str = "") -> Any:
    """Return a configuration with some settings replaced.

    Args:
        config: A frozen dataclass.
        settings: Values by name; a mapping replaces settings of the configuration under that name.
            Where there is a choice of configurations, such as of models or optimisers, its entry
            "type" names another one, whose settings begin at their defaults; its name alone does
            too.
        place: Where the configuration stands in a larger one.

    Raises:
        ConfigError: If there is no setting of that name, or a value is out of range.
    """
    known = {each.name: each for each in fields(config)}
    values = {}
    for name, value in settings.items():
        where = f"{place}.{name}" if place else name
        if name not in known:
            raise ConfigError(
                f"there is no setting {where!r}; "
                f"{remedy(name, sorted(known), f'settings of {type(config).__name__}')}"
            )
        kinds = _groups(known[name], getattr(config, name))
        missing = value is None and type(None) in get_args(known[name].type)
        if kinds and not missing:
            value = _with_group(getattr(config, name), kinds, value, where)
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return replace(config, **values)
    except TypeError as error:
        raise ConfigError(
            f"{place or type(config).__name__} does not take {values}: {error}"
        ) from error


def _groups(setting: Field[Any], now: Any) -> dict[str, type[Any]]:
    """Return the configurations that a setting may hold, by name; none where it holds a value."""
    # What is typed by a protocol does not tell which there are.
    known = _EXCITATIONS if setting.type is OpenLoop else get_args(setting.type)
    kinds = [*(known or [setting.type]), type(now)]
    return {kind.__name__: kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)}


def _with_group(now: Any, kinds: Mapping[str, type[Any]], value: Any, where: str) -> Any:
    """Return the configuration under a name, changed, or one of another type."""
    changes = {"type": value} if isinstance(value, str) else value
    if not isinstance(changes, Mapping):
        raise ConfigError(f"{where!r} is a group of settings: give it as an object")
    usual = next(iter(kinds)) if now is None else type(now).__name__
    chosen = changes.get("type", usual)
    if not isinstance(chosen, str) or chosen not in kinds:
        raise ConfigError(f"{where!r} has no type {chosen!r}; {remedy(str(chosen), kinds)}")
    begun = kinds[chosen]() if now is None or chosen != usual else now
    own = {name: each for name, each in changes.items() if name != "type"}
    return with_settings(begun, own, where)
