"""Channels as its documentation teaches it: a consumer a client, a group a symbol, `group_send` for each tick."""

import asyncio
import json
import os

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.conf import settings

from bench.peers.feed import Ticks, arguments, pump

LAYER = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [os.environ["REDIS_URL"]]}}
settings.configure(CHANNEL_LAYERS={"default": LAYER})


class TickConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        for symbol in json.loads(text_data):
            await self.channel_layer.group_add(symbol, self.channel_name)

    async def tick(self, event):
        await self.send(text_data=event["message"])


application = TickConsumer.as_asgi()


async def put(ticks: Ticks) -> None:
    for symbol, message in ticks:
        await get_channel_layer().group_send(symbol, {"type": "tick", "message": message.decode()})


if __name__ == "__main__":
    asyncio.run(pump(arguments(__doc__)[1], put))
