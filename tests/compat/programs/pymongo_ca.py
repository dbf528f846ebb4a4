import sys

from pymongo import MongoClient
from pymongo.server_api import ServerApi

uri = f"mongodb://localhost:{sys.argv[1]}/?tls=true&serverSelectionTimeoutMS=4000"
client = MongoClient(uri, server_api=ServerApi("1"), tlsCAFile=sys.argv[2])
print(client.admin.command("ping"))
client.close()
