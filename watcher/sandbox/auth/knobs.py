"""GoTrue's settings that an app may want to try; safe from any thread."""


class Knobs:
    """At first as in the Supabase CLI: access tokens for an hour, and no address has to be confirmed."""

    session_seconds: int
    confirms_emails: bool

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set everything back."""
        self.session_seconds = 3600
        self.confirms_emails = False

    def set_session_length(self, seconds: int) -> None:
        """Let the access tokens that are issued from now on last so many seconds."""
        if seconds < 1:
            raise ValueError(f"seconds must be at least 1, not {seconds}")
        self.session_seconds = seconds

    def confirm_emails(self, *, required: bool = True) -> None:
        """Set whether a new user has to open the link in a mail before signing in."""
        self.confirms_emails = required
