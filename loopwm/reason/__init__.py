"""The reasoner: TRM as a program over the looped core, its training, and its published files."""
