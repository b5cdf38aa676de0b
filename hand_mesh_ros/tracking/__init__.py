"""Hands over time: which one is which, where to look for it next, and when to look for others."""
