"""Studies of the reasoner; they go where it goes: without `loopwm.reason` the others are whole."""
