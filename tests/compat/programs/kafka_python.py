import sys

from kafka import KafkaProducer

producer = KafkaProducer(bootstrap_servers=f"localhost:{sys.argv[1]}", security_protocol="SSL")
print(producer.bootstrap_connected())
