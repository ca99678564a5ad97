"""Looped world models: one core refines a latent state until it can predict what happens next."""

__version__ = "0.1.0"
