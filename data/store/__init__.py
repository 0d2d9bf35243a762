"""The feedback store: everything that speaks SQL."""
