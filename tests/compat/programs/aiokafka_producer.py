import asyncio
import ssl
import sys

from aiokafka import AIOKafkaProducer


async def main():
    producer = AIOKafkaProducer(
        bootstrap_servers=f"localhost:{sys.argv[1]}",
        security_protocol="SSL",
        ssl_context=ssl.create_default_context(),
    )
    try:
        await producer.start()
    finally:
        await producer.stop()
    print("started")


asyncio.run(main())
