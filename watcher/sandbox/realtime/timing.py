"""How long Realtime 2.129.8 takes, as observed, so that a test can have it otherwise."""

from dataclasses import dataclass


@dataclass
class Timing:
    """All in seconds; may be changed while it runs."""

    handshake_error: float = 2.0
    """Before a handshake is refused."""
    join_error: float = 5.0
    """Before a join is refused; the socket is deaf meanwhile."""
    join: float = 0.0
    """Before a join is looked at, while the socket is deaf; 0.2 when the real one has just started."""
    warm: float = 0.005
    """From the join's reply to "Subscribed to PostgreSQL"."""
    cold: float = 2.0
    """The same for who comes before there is a slot: the first since the start, or since `linger` ran out."""
    resubscribe: float = 2.0
    """From a new token to the subscription under its claims; 1 to 3 on the real one."""
    retry_subscribe: float = 7.5
    """Between attempts to subscribe while Postgres is away; 5 to 10 on the real one."""
    idle: float = 66.0
    """Without a frame from the client until the server closes with 1000."""
    poll_idle: float = 0.5
    """Between polls while nothing happens."""
    poll_unmatched: float = 0.175
    """After a poll whose changes nobody had subscribed to."""
    retry_first: float = 0.1
    """After the first failed poll; doubled for each further one."""
    retry_most: float = 15.0
    """Between failing polls at most."""
    give_up: float = 90.0
    """Of failing polls until the poller ends, and nobody who is joined hears of it."""
    linger: float = 600.0
    """Without a subscription until the slot is dropped."""
    token_check: float = 300.0
    """Between looks at a channel's token, unless it expires before."""
    publication_check: float = 60.0
    """Between looks at which tables are published."""
