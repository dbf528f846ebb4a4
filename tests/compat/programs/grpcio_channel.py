import sys
from pathlib import Path

import grpc

credentials = grpc.ssl_channel_credentials(Path(sys.argv[2]).read_bytes())
with grpc.secure_channel(f"localhost:{sys.argv[1]}", credentials) as channel:
    grpc.channel_ready_future(channel).result(timeout=5)
    print("ready")
