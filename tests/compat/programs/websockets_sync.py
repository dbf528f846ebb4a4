import sys

from websockets.sync.client import connect

with connect(f"wss://localhost:{sys.argv[1]}") as websocket:
    websocket.send("Hello world!")
    print(websocket.recv())
