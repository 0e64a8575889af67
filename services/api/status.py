"""Ping, Credits, VendorStatus: what the server says about itself."""

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response

from services.api.negotiation import answer, wanted_encoding
from services.core.settings import Settings
from services.core.wire.status import encode_api_information, encode_credits, encode_vendor_status


class Status:
    """The routes that need nothing but settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version = version("segint")

    async def ping(self, request: Request) -> Response:
        """GET /ping, /api/ping → ApiInformation."""
        return answer(request, encode_api_information(self._version, wanted_encoding(request)))

    async def credits(self, request: Request) -> Response:
        """GET /api/v2/Credits → Credits."""
        return answer(request, encode_credits(self._settings, wanted_encoding(request)))

    async def vendor_status(self, request: Request) -> Response:
        """GET /api/v2/VendorStatus → VendorStatus."""
        url = self._settings.public_url or str(request.base_url)
        return answer(request, encode_vendor_status(self._settings, url, wanted_encoding(request)))
