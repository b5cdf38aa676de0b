"""Mutations of messages and files, and what reads them; ``scripts/fuzz.py`` is the command."""
