"""Helpers for every room, from the standard library alone: files, and the environment of other tools."""
