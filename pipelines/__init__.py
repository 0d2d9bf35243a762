"""The stages of a run, their settings, the command line and the reports.

The only package that imports all the others.
"""
