"""Rows into DataFrames, and back."""

from workbench.frames.errors import FrameError
from workbench.frames.load import load
from workbench.frames.read import frame

__all__ = ["FrameError", "frame", "load"]
