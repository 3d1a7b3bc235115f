"""Flows recorded by this project: the small network of servers, clients and attackers they come from, and their table."""
