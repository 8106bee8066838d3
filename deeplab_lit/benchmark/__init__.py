"""Measure speed: a variant or a command beside a baseline in the same run."""
