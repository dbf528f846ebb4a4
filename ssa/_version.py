"""The version of ssa; packaging reads it here too."""

__version__ = "0.1.0"
