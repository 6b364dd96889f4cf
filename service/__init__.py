"""chatkit-mint: the session service between an app and ChatKit."""

__version__ = "0.1.0"
