"""One file an API format or a page; each offers its routes, and nothing else is wired here."""
