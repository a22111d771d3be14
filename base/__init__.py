"""Helpers for every room, from the standard library alone: checks, parameters, files, and other tools' environment."""
