"""Explain image classifiers: neurons, pixels, agreement, faithfulness.

The modules, from upstream to downstream: `images`, `models`, `explain`, `masks`, `agreement`,
`results`, `figures`. Importing this package imports none of them, so it is quick.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("xailib")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"
