"""World models one row at a time in numpy float64, from their weights and DESIGN's equations."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

Array = np.ndarray
# (weights, what is carried, input, iterations) -> (feature, what is carried on)
Feature = Callable[[Mapping[str, Array], Array, Array, int], tuple[Array, Array]]

RETAINED = 0.98  # Bounded's default largest retention


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def rms(x: Array) -> Array:
    return x / np.sqrt(np.mean(x**2) + 1e-6)


def cell(w: Mapping[str, Array], name: str, h: Array, e: Array) -> Array:
    """`abar h + B e + R(norm(h), e)`, or TRM's blocks where the weights are theirs."""
    if f"{name}.blocks.0.transform.enter.weight" in w:
        return post_norm(w, name, h, e)
    abar = RETAINED * np.exp(-np.exp(w[f"{name}.log_rate"]))
    gates = w[f"{name}.from_state"] @ rms(h)
    gates = gates + w[f"{name}.from_injection.weight"] @ e + w[f"{name}.from_injection.bias"]
    gate, value = np.split(gates, 2)
    return abar * h + w[f"{name}.inject.weight"] @ e + w[f"{name}.leave"] @ (silu(gate) * value)


def post_norm(w: Mapping[str, Array], name: str, h: Array, e: Array) -> Array:
    """Two blocks on `h + e`, each sum normalised; a single token attends to its own value."""

    def normed(x: Array) -> Array:
        return x / np.sqrt(np.mean(x**2) + 1e-5)

    h = h + e
    for block in (f"{name}.blocks.0", f"{name}.blocks.1"):
        if f"{block}.mix.enter.weight" in w:
            value = (w[f"{block}.mix.enter.weight"] @ h)[2 * len(h) :]
            h = normed(h + w[f"{block}.mix.leave.weight"] @ value)
        gate, value = np.split(w[f"{block}.transform.enter.weight"] @ h, 2)
        h = normed(h + w[f"{block}.transform.leave.weight"] @ (silu(gate) * value))
    return h


def injection(w: Mapping[str, Array], carried: Array, x: Array) -> Array:
    e = w["dynamics.enter.weight"] @ x + w["dynamics.enter.bias"]
    if "dynamics.recall.weight" in w:
        e = e + w["dynamics.recall.weight"] @ rms(carried)
    return e


def looped(
    w: Mapping[str, Array], carried: Array, x: Array, iterations: int, cold: bool = False
) -> tuple[Array, Array]:
    e, h = injection(w, carried, x), w["dynamics.origin"] if cold else carried
    for _ in range(iterations):
        h = cell(w, "dynamics.core.cell", h, e)
    return h, h


def untied(
    w: Mapping[str, Array], carried: Array, x: Array, iterations: int
) -> tuple[Array, Array]:
    e, h = injection(w, carried, x), carried
    for block in range(iterations):
        h = cell(w, f"dynamics.cells.{block}", h, e)
    return h, h


def mlp(w: Mapping[str, Array], carried: Array, x: Array, iterations: int) -> tuple[Array, Array]:
    for layer in range(iterations):
        x = silu(w[f"dynamics.layers.{layer}.weight"] @ x + w[f"dynamics.layers.{layer}.bias"])
    return x, carried


def gru(w: Mapping[str, Array], carried: Array, x: Array, iterations: int) -> tuple[Array, Array]:
    """PyTorch's documented equations: r, z, n from weights stacked in that order."""
    x = silu(w["dynamics.enter.weight"] @ x + w["dynamics.enter.bias"])
    h = gru_cell(w, x, carried)
    return silu(w["dynamics.leave.weight"] @ h + w["dynamics.leave.bias"]), h


def gru_cell(w: Mapping[str, Array], x: Array, carried: Array) -> Array:
    from_x = w["dynamics.cell.weight_ih"] @ x + w["dynamics.cell.bias_ih"]
    from_h = w["dynamics.cell.weight_hh"] @ carried + w["dynamics.cell.bias_hh"]
    xr, xz, xn = np.split(from_x, 3)
    hr, hz, hn = np.split(from_h, 3)
    reset, update = sigmoid(xr + hr), sigmoid(xz + hz)
    return (1 - update) * np.tanh(xn + reset * hn) + update * carried


def injected_once(
    w: Mapping[str, Array], carried: Array, x: Array, iterations: int
) -> tuple[Array, Array]:
    e = injection(w, carried, x)
    h = cell(w, "dynamics.core.cell", carried, e)
    for _ in range(iterations):
        h = cell(w, "dynamics.core.cell", h, np.zeros_like(e))
    return h, h


def two_layers(w: Mapping[str, Array], name: str, x: Array) -> Array:
    hidden = silu(w[f"{name}.0.weight"] @ x + w[f"{name}.0.bias"])
    return w[f"{name}.2.weight"] @ hidden + w[f"{name}.2.bias"]


def settled(stated: Array, classes: int | None) -> Array:
    """The mean of a Gaussian latent, the likeliest class of each variable of another."""
    if classes is None:
        return stated[: len(stated) // 2]
    likeliest = stated.reshape(-1, classes).argmax(axis=1)
    return np.eye(classes)[likeliest].ravel()


def rssm(
    w: Mapping[str, Array],
    carried: Array,
    x: Array,
    iterations: int,
    classes: int | None = None,
) -> tuple[Array, Array]:
    """PlaNet's equation 4: h' = f(h, s, a), s' ~ p(s' | h'), where s ~ q(s | h, o) if o is seen."""
    width = len(w["dynamics.enter.bias"])
    h, expected = carried[:width], carried[width:]
    observed = w["dynamics.posterior.0.weight"].shape[1] - width
    visible, action, hidden = x[:observed], x[observed:-1], x[-1]
    inferred = two_layers(w, "dynamics.posterior", np.concatenate([h, visible]))
    latent = expected if hidden else settled(inferred, classes)
    entered = np.concatenate([latent, action])
    entered = silu(w["dynamics.enter.weight"] @ entered + w["dynamics.enter.bias"])
    h = gru_cell(w, entered, h)
    expected = settled(two_layers(w, "dynamics.prior", h), classes)
    both = np.concatenate([h, expected])
    feature = silu(w["dynamics.leave.weight"] @ both + w["dynamics.leave.bias"])
    return feature, both


FEATURES: dict[str, Feature] = {
    **{"WorldConfig": looped, "Untied": untied, "MLP": mlp, "GRU": gru, "RSSM": rssm},
}


class Row:
    """One row of a world model: start, observe and step, in environment units."""

    def __init__(self, model: Any, iterations: int) -> None:
        self.w = {n: v.detach().double().numpy() for n, v in model.state_dict().items()}
        self.stats = model.stats
        self.iterations = iterations
        self.feature = FEATURES[type(model.config).__name__]
        if not getattr(model.config, "warm", True):
            self.feature = partial(looped, cold=True)
        if not getattr(model.config, "reinject", True):
            self.feature = injected_once
        if self.feature is rssm:
            self.feature = partial(rssm, classes=model.config.classes)
        self.latent = getattr(model.dynamics, "latent", 0)
        self.frames = getattr(model.config, "frames", 1)
        self.clip = model.config.clip
        self.carries = model.dynamics.carries
        self.margin = model.margin
        self.choices = model.meta.num_actions
        self.angles = model.meta.angles
        self.floor = getattr(model.config.head, "floor", None)

    def start(self, obs: Array) -> None:
        self.obs, self.seen = self.standard(obs), 1.0
        self.older = [self.obs] * (self.frames - 1)
        self.carried = self.origin()

    def origin(self) -> Array:
        if "dynamics.origin" in self.w:
            return self.w["dynamics.origin"]
        return np.zeros(len(self.w.get("dynamics.enter.bias", [])) + self.latent)

    def frame(self, obs: Array) -> Array:
        """Return what is seen of a standardised observation: of an angle, where it points."""
        raw = obs * self.stats.obs_std + self.stats.obs_mean
        others = [i for i in range(len(obs)) if i not in self.angles]
        straight = [min(max(obs[i], -self.clip), self.clip) for i in others]
        turned = [wave(raw[i]) for wave in (np.sin, np.cos) for i in self.angles]
        return np.array([*straight, *turned])

    def standard(self, obs: Array) -> Array:
        return (obs - self.stats.obs_mean) / self.stats.obs_std

    def scaled(self, action: Any) -> Array:
        if self.choices is not None:
            return np.eye(self.choices)[action]
        low, high = self.stats.action_low, self.stats.action_high
        return 2 * (action - low) / (high - low) - 1

    def advance(self, action: Any) -> Array:
        """Return the feature, and remember what is carried and shown next time."""
        frames = [self.frame(each) for each in self.older]
        shown = self.frame(self.obs) * self.seen
        x = np.concatenate([*frames, shown, self.scaled(action), [1 - self.seen]])
        feature, carried = self.feature(self.w, self.carried, x, self.iterations)
        if self.carries:
            self.carried = carried
        self.older = [*self.older, self.obs * self.seen][1:]
        return feature

    def observe(self, action: Any, obs: Array) -> None:
        self.advance(action)
        self.obs, self.seen = self.standard(obs), 1.0

    def step(self, action: Any, feedback: str = "observation") -> dict[str, Any]:
        feature = self.advance(action)
        w, stats = self.w, self.stats
        change = w["heads.change.weight"] @ feature + w["heads.change.bias"]
        before = self.obs * stats.obs_std + stats.obs_mean
        after = before + change * stats.change_std + stats.change_mean
        if feedback == "observation" and self.margin is not None:
            after = self.held(after, before)
        self.obs, self.seen = self.standard(after), float(feedback == "observation")
        out = {
            "next_obs": after,
            "reward": self.small("reward", feature)[0] * stats.reward_std + stats.reward_mean,
            "terminated": sigmoid(self.ending()),
        }
        if self.floor is not None:
            spread = np.log1p(np.exp(self.small("spread", feature))) + self.floor
            out["std"] = spread * w["heads.spread_scale"] * stats.change_std
        return out

    def held(self, after: Array, before: Array) -> Array:
        """Stay in the training data's range and a margin beyond, or no further out than before."""
        stats, out = self.stats, after.copy()
        for i in set(range(len(out))) - set(self.angles):
            reach = self.margin * max(stats.obs_high[i] - stats.obs_low[i], stats.obs_std[i])
            low, high = stats.obs_low[i] - reach, stats.obs_high[i] + reach
            out[i] = min(max(out[i], min(low, before[i])), max(high, before[i]))
        return out

    def ending(self) -> Array:
        x = self.frame(self.obs)
        for layer in (0, 2):
            w, b = (self.w[f"heads.termination.{layer}.{name}"] for name in ("weight", "bias"))
            x = silu(w @ x + b)
        return (self.w["heads.termination.4.weight"] @ x + self.w["heads.termination.4.bias"])[0]

    def small(self, name: str, feature: Array) -> Array:
        hidden = silu(self.w[f"heads.{name}.0.weight"] @ feature + self.w[f"heads.{name}.0.bias"])
        return self.w[f"heads.{name}.2.weight"] @ hidden + self.w[f"heads.{name}.2.bias"]
