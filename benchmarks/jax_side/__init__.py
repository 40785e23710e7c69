"""neural-tangents as a peer; everything here runs in the environment of `make bench-peers`, without torch."""
