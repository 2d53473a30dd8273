"""No network: every connection by internet, and every look-up of a name, ends the command."""

import socket


def refuse(replace=setattr):
    """Refuse from now on; `replace` is given what `setattr` is."""
    connect = socket.socket.connect

    def refuse_address(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise SystemExit(f"a network connection was opened: {address}")
        return connect(self, address, *rest)

    def refuse_name(*_, **__):
        raise SystemExit("a name was looked up")

    replace(socket.socket, "connect", refuse_address)
    replace(socket, "getaddrinfo", refuse_name)
