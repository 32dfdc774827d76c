"""Explain image classifiers: neurons, pixels, agreement, faithfulness; imports nothing itself."""

import warnings
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("xailib")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

# lime, and timm's way to the hub, draw their bars with tqdm.auto, which complains in a notebook
# without ipywidgets when it is first imported. Plain bars are what the report wants.
warnings.filterwarnings("ignore", message="IProgress not found")
