"""Ablations: a W&B sweep file run here, and a report with error bars.

sweep.py reads the file, plan.py says which runs it takes, runner.py runs them (live.py shows it),
results.py reads what they left, and the rest makes the report of it.
"""
