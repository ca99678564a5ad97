"""Measure, show and compare models: evaluation, tables, plots, videos, reports and benchmarks."""
