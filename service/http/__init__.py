"""The edge: routes, problem answers, the two listeners."""
