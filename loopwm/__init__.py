"""loopwm: looped world models."""
