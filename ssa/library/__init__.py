"""What runs in an application: the socket API, and the life of its sockets."""
