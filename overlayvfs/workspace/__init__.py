"""What people do with a union: look at its changes, fork, commit, bound, watch, save."""
