"""What the rules have to say beside their findings, gathered."""


class Verdict:
    """Ruled out, with the reason; not judged, with the reading that would tell."""

    def __init__(self) -> None:
        self.ruled_out: dict[str, str] = {}
        self.unjudged: dict[str, str] = {}

    def rules_out(self, suspect: str, reason: str) -> None:
        """It is not to blame, for this reason."""
        self.ruled_out[suspect] = reason

    def needs(self, challenge: str, instrument: str) -> None:
        """Nothing in the log would show it; that instrument would."""
        self.unjudged.setdefault(challenge, f"needs the readings of {instrument}.")
