"""The file system at /ssa.

root.py         all that is in it; sockets.py: the files of a socket and of a listener
nodes.py        the rows of these tables: a file, a directory, a collection; members.py: a collection's members
view.py         what the daemon provides to it; render.py: values as the bytes of a file
tree.py         the nodes by inode
operations.py   FUSE's requests; attributes.py, values.py, handles.py: what they are made of; writers.py
mount.py        mounting it
"""
