"""Redis: what is live, what must still be cancelled, who logged out, who is over quota."""
