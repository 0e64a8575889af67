"""The models that clients may use."""

from starlette.requests import Request
from starlette.responses import Response

from services.api.negotiation import answer, wanted_encoding
from services.core.db import catalogue as rows
from services.core.db.session import AsyncDatabase
from services.core.wire.catalogue import encode_models


class Catalogue:
    """The route of the catalogue."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database

    async def models(self, request: Request) -> Response:
        """GET /api/v2/Model/ → ModelsCollection of what is enabled and runnable."""
        families = await self._database.run(rows.published_families)
        return answer(request, encode_models(families, wanted_encoding(request)))
