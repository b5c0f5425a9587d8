"""Keeps one external worker registered with a beta9 gateway and ready."""

__version__ = "0.1.0"
