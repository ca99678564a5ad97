"""Simulators with known difficulty, as Gymnasium environments named `loopwm/...`.

Importing the package registers them. Gymnasium 1.x reads no plugin entry points, so either import
it yourself or name it in the id: `gymnasium.make("loopwm_envs:loopwm/...")`.
"""
