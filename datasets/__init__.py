"""Data set recorded by this project, and the programs that recorded it."""
