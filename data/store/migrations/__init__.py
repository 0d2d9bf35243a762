"""The history of the feedback store's tables, run when a store is opened.

`data/store/tables.py` describes the tables that it leads to.
"""
