"""What can be seen of the clients' side from outside: Redis, leases, the bridge, the servers. Nothing here waits for long."""
