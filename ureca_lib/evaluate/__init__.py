"""Measuring captions: metrics, uniqueness, baselines and the tables that show them."""
