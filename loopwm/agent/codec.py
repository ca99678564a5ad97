"""Configurations of agents as JSON values, and back."""

from dataclasses import fields
from typing import Any

from loopwm.agent.config import (
    MPC,
    Algorithm,
    Dyna,
    Planning,
    Refit,
    SoftActorCritic,
    TerminalValue,
)
from loopwm.data.excitation import Excitation, OrnsteinUhlenbeck, Sines, Uniform
from loopwm.errors import ConfigError, StoreError
from loopwm.train.config import AdamATan2, AdamW, FitConfig, Muon, SignSGD
from loopwm.world import build

# Every type that a saved agent may name beside those of its model.
_TYPES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(MPC, Dyna, Planning, Refit, SoftActorCritic, TerminalValue, FitConfig),
        *(AdamW, Muon, AdamATan2, SignSGD),
        *(Excitation, OrnsteinUhlenbeck, Sines, Uniform),
    )
}


def encode(value: Any) -> Any:
    """Return a configuration as JSON values; each dataclass names its type."""
    if type(value) in _TYPES.values():
        inner = {each.name: encode(getattr(value, each.name)) for each in fields(value)}
        return {"type": type(value).__name__, **inner}
    if isinstance(value, tuple | list):
        return [encode(each) for each in value]
    return build.encode(value)


def decode(document: Any, path: str) -> Algorithm:
    """Return the configuration that `encode` wrote.

    Args:
        document: The JSON values.
        path: Where they come from.

    Raises:
        StoreError: If they are no configuration of an agent.
    """
    algorithm = _decode(document, path)
    if not isinstance(algorithm, MPC | Dyna):
        raise StoreError(f"{path} holds no configuration of an agent")
    return algorithm


def _decode(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return tuple(_decode(each, path) for each in value)
    if not (isinstance(value, dict) and value.get("type") in _TYPES):
        return build.decode(value, path)
    inner = {name: _decode(each, path) for name, each in value.items() if name != "type"}
    try:
        return _TYPES[value["type"]](**inner)
    except (TypeError, ConfigError) as error:
        raise StoreError(
            f"{path} holds settings of {value['type']} that this version does not take: {error}"
        ) from error
