"""The use cases: mint, list, cancel, log out, sweep."""
