"""The whole program as processes, seen from outside: as a frontend, as an operator, as somebody on the Hub."""
