"""Several processes on the same sockets, and the parent that starts, replaces and ends them."""
