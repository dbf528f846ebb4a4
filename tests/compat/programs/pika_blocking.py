import ssl
import sys

import pika

parameters = pika.ConnectionParameters(
    "localhost", int(sys.argv[1]), ssl_options=pika.SSLOptions(ssl.create_default_context(), "localhost")
)
connection = pika.BlockingConnection(parameters)
channel = connection.channel()
channel.queue_declare(queue="hello")
channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")
print(channel.basic_get("hello", auto_ack=True)[2])
connection.close()
