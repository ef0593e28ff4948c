"""What the rules have to say beside their findings, gathered."""


class Verdict:
    """Found so far; ruled out, with the reason; not judged, with the instrument that would tell."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.ruled_out: dict[str, str] = {}
        self.unjudged: dict[str, str] = {}

    def rules_out(self, suspect: str, reason: str) -> None:
        """It is not to blame, because ..."""
        self.ruled_out[suspect] = reason

    def needs(self, challenge: str, instrument: str) -> None:
        """Nothing here would show it; that instrument would."""
        self.unjudged[challenge] = f"needs the readings of {instrument}."
