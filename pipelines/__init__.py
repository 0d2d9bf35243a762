"""The stages of a run, their settings, the command line and the report; the only package that knows all the others."""
