"""One file a dialect; each builds its router from what it is given, and nothing else is wired here."""
