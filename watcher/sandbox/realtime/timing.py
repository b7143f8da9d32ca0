"""How long Realtime 2.129.8 takes, as observed; tests can change it."""

from dataclasses import dataclass


@dataclass
class Timing:
    """All in seconds; can be changed at any time."""

    handshake_error: float = 2.0
    """Before a handshake is refused."""
    join_error: float = 5.0
    """Before a join is refused; the socket handles nothing else in the meantime."""
    join: float = 0.0
    """Before a join is handled, as for `join_error`; 0.2 when the real one has just started."""
    warm: float = 0.005
    """From the join's reply to "Subscribed to PostgreSQL"."""
    cold: float = 2.0
    """The same without a slot: for the first subscription since the start, or since the slot was dropped."""
    resubscribe: float = 2.0
    """From a new token to the subscription with its claims; 1 to 3 on the real one."""
    retry_subscribe: float = 7.5
    """Between attempts to subscribe while Postgres is down; 5 to 10 on the real one."""
    idle: float = 66.0
    """How long a client may send neither a frame nor a ping, until the server closes with 1000."""
    poll_idle: float = 0.5
    """Between polls while nothing changes."""
    poll_unmatched: float = 0.175
    """After a poll with changes that matched no subscription."""
    retry_first: float = 0.1
    """After the first failed poll; doubled for each further one."""
    retry_most: float = 15.0
    """The longest time between failed polls."""
    give_up: float = 90.0
    """How long polls may fail, until polling ends; clients that have joined are not told."""
    linger: float = 600.0
    """How long there may be no subscription, until the slot is dropped."""
    token_check: float = 300.0
    """Between checks of a channel's token, unless it expires sooner."""
    publication_check: float = 60.0
    """Between checks of which tables are published."""
