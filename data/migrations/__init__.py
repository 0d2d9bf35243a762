"""The history of the feedback store's tables, run when a store is opened; `data/tables.py` describes where it leads."""
