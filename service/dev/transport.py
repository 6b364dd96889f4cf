"""Finds the development identity provider where it listens, under the name that tenant files know it by."""

import httpx2

from service.dev.identity_provider import ISSUER


class DevTransport(httpx2.AsyncBaseTransport):
    """Passes everything on to *inner*; what is addressed to the development issuer goes to *actual*."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, actual: str) -> None:
        self._inner = inner
        self._named = httpx2.URL(ISSUER)
        self._actual = httpx2.URL(actual)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request to where its host listens."""
        if (request.url.host, request.url.port) == (self._named.host, self._named.port):
            request.url = request.url.copy_with(port=self._actual.port)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
