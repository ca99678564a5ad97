"""Simulators with known difficulty, as Gymnasium environments named `loopwm/...`."""


def register() -> None:
    """Register the environments with Gymnasium, which calls this when it is imported."""
