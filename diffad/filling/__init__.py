"""Filling the gaps of recordings: which prior, what a network learns on top, and samples of any gap."""
