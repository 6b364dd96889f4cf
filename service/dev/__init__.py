"""Everything on one machine, for development: never part of `serve`."""
