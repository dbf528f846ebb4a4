import asyncio
import sys

import aio_pika


async def main():
    connection = await aio_pika.connect(f"amqps://guest:guest@localhost:{sys.argv[1]}/")
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("hello2", auto_delete=True)
        await channel.default_exchange.publish(aio_pika.Message(body=b"Hello World!"), routing_key="hello2")
        message = await queue.get(timeout=5)
        await message.ack()
        print(message.body)


asyncio.run(main())
