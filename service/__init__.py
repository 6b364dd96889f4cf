"""chatkit-mint: the session service between an app and ChatKit."""
