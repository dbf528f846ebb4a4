"""The daemon, ssad: who asks, what is in force, which sockets there are, and the start and end of the process."""
