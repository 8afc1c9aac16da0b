"""miniredis's commands about the connection, by the redis package."""

from __future__ import annotations

import redis


def test_connection_commands(client: redis.Redis) -> None:
    assert client.client_getname() in ("test", b"test")
    assert client.client_id() > 0
    assert client.select(0) is True
    assert client.config_get("save") == {"save": ""} or client.config_get("save") == {b"save": b""}
    about = client.info()
    assert about["connected_clients"] >= 1
    assert about["total_commands_processed"] >= 1
    assert client.execute_command("COMMAND") == {}
