"""How the processes talk: one stream socket per child, length-prefixed messages."""
