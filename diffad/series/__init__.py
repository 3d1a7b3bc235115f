"""Recordings: tables in and out, windows, and the units of channels."""
