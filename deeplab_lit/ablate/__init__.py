"""Ablations: a W&B sweep file run on this machine, and a report with error bars.

sweep.py reads the file, plan.py lists the runs, runner.py runs them as processes (process.py) and
shows how far they are, results.py reads what they leave, table.py and bootstrap.py compare the
settings, words.py and plots.py say it, panels.py shows what the networks see, and report.py writes
the page.
"""
