"""Rows of tables: encoding, evidence, and filling."""
