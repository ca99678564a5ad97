"""Agents: policies trained in the real environment, and what acts by imagining."""
