"""Looped against unlooped models: the instrument that says what looping is worth."""
