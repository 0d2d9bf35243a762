"""Learns from sessions what to show to a person: slates, values, types of people."""
