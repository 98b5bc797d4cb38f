"""What the doctor says: findings, each with figures and remedies, and the report that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["SEVERITIES", "Finding", "Remedy", "Report"]

SEVERITIES = ("error", "warning", "note")
"""From the worst: the run is worth nothing; it is worse than it need be; good to know."""

_MARKS = {"error": "✗", "warning": "!", "note": "·"}
_COLOURS = {"error": "#c0392b", "warning": "#b9770e", "note": "#5d6d7e"}


class Remedy(NamedTuple):
    """Something to try, with the line of code that does it."""

    text: str
    code: str


class Finding(NamedTuple):
    """One ailment.

    Attributes
    ----------
    ailment : str
        Its name; the guide lists them all.
    severity : {"error", "warning", "note"}
        How bad it is; only errors and warnings make a report unhealthy.
    text : str
        What is wrong, in words, with the figures that show it.
    figures : dict of str to float or str
        The figures by name.
    remedies : tuple of Remedy
        What to try, the likeliest first.
    epoch, step : int, optional
        Where it was seen first, counted from 0; the step within the epoch.
    """

    ailment: str
    severity: str
    text: str
    figures: Mapping[str, float | str]
    remedies: tuple[Remedy, ...]
    epoch: int | None = None
    step: int | None = None

    @property
    def place(self) -> str:
        """Where it was seen first, in words and counted from 1; empty if it is not of one place."""
        if self.epoch is None:
            return ""
        return f"epoch {self.epoch + 1}" + ("" if self.step is None else f", step {self.step + 1}")

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        lines = [f"{_MARKS[self.severity]} {_words(self.ailment)}{place}: {self.text}"]
        for number, remedy in enumerate(self.remedies, 1):
            lines += [f"    {number}. {remedy.text}:", f"       {remedy.code}"]
        return "\n".join(lines)

    def html(self) -> str:
        """Return it as HTML."""
        from html import escape

        place = f" <small>{escape(self.place)}</small>" if self.place else ""
        items = "".join(
            f"<li>{escape(remedy.text)}<br><code>{escape(remedy.code)}</code></li>" for remedy in self.remedies
        )
        colour = _COLOURS[self.severity]
        return (
            f'<p><b style="color:{colour}">{escape(_words(self.ailment))}</b>{place}<br>{escape(self.text)}</p>'
            f"<ol>{items}</ol>"
        )

    def _repr_html_(self) -> str:
        return self.html()


class Report:
    """What an examination found, the worst first; an iterable of `Finding`.

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> x = np.random.default_rng(0).normal(size=(64, 3))
    >>> model = bn.Sequential([bn.layers.Dense(1)])
    >>> model.compile(loss="mse", learning_rate=1e-9)
    >>> report = bn.Doctor().examine(model.fit(x, x.sum(axis=1, keepdims=True), epochs=20, verbose=0))
    >>> report.healthy
    False
    >>> "updates_too_small" in report
    True
    """

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def ailments(self) -> list[str]:
        """The names of what was found."""
        return [finding.ailment for finding in self.findings]

    def __contains__(self, ailment: object) -> bool:
        return ailment in self.ailments

    def __getitem__(self, ailment: str) -> Finding:
        for finding in self.findings:
            if finding.ailment == ailment:
                return finding
        raise KeyError(f"{ailment!r} was not found; the report holds {', '.join(self.ailments) or 'nothing'}")

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        if not self.findings:
            return "The doctor finds nothing wrong."
        return "\n".join(["The doctor finds:", *map(str, self.findings)])

    def __repr__(self) -> str:
        return f"<Report: {', '.join(self.ailments) or 'nothing wrong'}>"

    def _repr_html_(self) -> str:
        return "".join(finding.html() for finding in self.findings) or "<p>The doctor finds nothing wrong.</p>"


def _words(ailment: str) -> str:
    return ailment.replace("_", " ")
