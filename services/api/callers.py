"""Who asks: a token, or somebody in a trusted network; what they may do, and whose jobs they see."""

from dataclasses import dataclass

from starlette.requests import Request

from services.core.errors import NotPermitted
from services.core.jobs import Job
from services.core.tokens import Scope, Token

Scopes = frozenset[Scope]

CALLER = "segint.caller"
"""Where the request's scope keeps them."""

ANY: Scopes = frozenset(Scope)
"""For what every token may ask."""
READING: Scopes = frozenset({Scope.SEGMENT, Scope.READ})
SEGMENTING: Scopes = frozenset({Scope.SEGMENT})
REPORTING: Scopes = frozenset({Scope.FEEDBACK})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request that was let in."""

    actor: str
    """In the audit's words: `token:NAME` or `network:ADDRESS`."""
    scopes: Scopes
    token_id: int | None
    sees_all: bool
    """Whether the jobs of others are there for them."""

    def require(self, enough: Scopes) -> None:
        """Let pass who has one of these scopes.

        Raises:
            NotPermitted: none of them.
        """
        if not self.scopes & enough:
            names = " or ".join(f"«{scope}»" for scope in Scope if scope in enough)
            raise NotPermitted(
                f"«{self.actor}» lacks the scope {names}; ask the administrator for a token that has it."
            )

    def sees(self, job: Job) -> bool:
        """Whether the job is there for this caller."""
        return self.sees_all or (self.token_id is not None and job.token_id == self.token_id)


def caller_with(token: Token) -> Caller:
    """Whoever presents `token`."""
    return Caller(token.actor, token.scopes, token.id, token.all_jobs)


def caller_at(address: str) -> Caller:
    """Whoever is let in for the address alone: they may do all that the API does."""
    return Caller(f"network:{address}", ANY, None, sees_all=True)


def caller_of(request: Request) -> Caller:
    """Who sent this request, after it was let in."""
    caller: Caller = request.scope[CALLER]
    return caller
