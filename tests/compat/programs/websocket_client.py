import sys

from websocket import create_connection

ws = create_connection(f"wss://localhost:{sys.argv[1]}")
ws.send("Hello, World")
print(ws.recv())
ws.close()
