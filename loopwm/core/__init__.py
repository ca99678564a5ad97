"""Looped computation: one cell refines latent states again and again. Knows no environment."""
