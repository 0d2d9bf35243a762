"""The stages of a run, their settings, the command line and the reports.

The only package that knows all the others.
"""
