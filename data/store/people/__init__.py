"""Raters and admins: accounts, their own work, reports, decisions and their trail."""
