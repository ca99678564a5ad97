"""The ranges of the settings that sampling planners share."""

from loopwm.errors import ConfigError


def check_search(
    candidates: int, iterations: int, elites: int, std: float, momentum: float = 0.0
) -> None:
    """Refuse settings with which no search is possible.

    Args:
        candidates: At least 2.
        iterations: At least 1.
        elites: From 1 to `candidates`.
        std: Above 0.
        momentum: In [0, 1).

    Raises:
        ConfigError: Naming the setting, its value and its range.
    """
    if candidates < 2:
        raise ConfigError(f"candidates must be at least 2, got {candidates}")
    if iterations < 1:
        raise ConfigError(f"iterations must be at least 1, got {iterations}")
    if not 1 <= elites <= candidates:
        raise ConfigError(f"elites must lie in 1..candidates={candidates}, got {elites}")
    if not std > 0:
        raise ConfigError(f"std must be above 0, got {std}")
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must lie in [0, 1), got {momentum}")


def elites_of(elites: int | None, candidates: int, most: int, share: int = 8) -> int:
    """Return how many candidates count as the best: as asked, else one of every `share`.

    Args:
        elites: What was asked, or None.
        candidates: How many there are.
        most: Where none was asked, no more than these.
        share: Where none was asked, one of so many.
    """
    return min(most, max(1, candidates // share)) if elites is None else elites
