"""The history of the feedback store's tables.

A new store is created from `data/store/tables.py` and marked with the latest revision. A store of
an earlier version is brought to these tables by the revisions after its own when it is opened. The
test of a revision starts from a store that the version before it made.
"""
