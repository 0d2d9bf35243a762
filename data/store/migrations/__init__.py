"""The history of the feedback store's tables.

A new store is created from `data/store/tables.py` and marked with the latest revision. Opening a
store of an earlier version runs the revisions after its own. The test of a revision starts from a
store of the previous version.
"""
