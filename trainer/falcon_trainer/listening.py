"""Sockets that listen on all addresses of the pod."""

import socket

BACKLOG = 128


def listening_socket(port: int) -> socket.socket:
    """Listens on `port`, on IPv6 and IPv4 through one socket where the pod has both.

    Raises OSError where the port is taken.
    """
    if socket.has_dualstack_ipv6() and _can_use_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=BACKLOG)


def _can_use_ipv6() -> bool:
    """Kernels may know IPv6 and still have no address of it (net.ipv6.conf.all.disable_ipv6)."""
    try:
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except OSError:
        return False
    return True
