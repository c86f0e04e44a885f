"""How the service speaks HTTP: the protocol, what is wrapped around the application, bodies and responses."""
