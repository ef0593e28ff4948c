"""Collects the challenges that the rules exclude or cannot judge."""


class Verdict:
    """The suspects ruled out, with the reasons, and the challenges not judged, with the missing readings."""

    def __init__(self) -> None:
        self.ruled_out: dict[str, str] = {}
        self.unjudged: dict[str, str] = {}

    def rules_out(self, suspect: str, reason: str) -> None:
        """Records that `suspect` is not the cause, for this reason."""
        self.ruled_out[suspect] = reason

    def needs(self, challenge: str, instrument: str) -> None:
        """Records that the log cannot show `challenge`, and which instrument would."""
        self.unjudged.setdefault(challenge, f"needs the readings of {instrument}.")
