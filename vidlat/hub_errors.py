"""Errors of huggingface_hub in one line for people."""

from __future__ import annotations

from vidlat.errors import one_line


def explain(error: Exception) -> str:
    """One line on why the hub could not be used and what to do, for any error huggingface_hub raises."""
    import httpx2
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = one_line(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids downloading it"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"{hub} refuses access ({status}): accept the terms on the model's page, "
                "then log in with `hf auth login` or set HF_TOKEN"
            )
        if status == 404:
            return f"{hub} has no such repository, revision or file (404): {text}"
        return f"{hub} answered {status}, try again later: {text}"
    if isinstance(error, httpx2.TimeoutException):
        return f"{hub} did not answer in {constants.HF_HUB_ETAG_TIMEOUT} seconds; check the network or proxy"
    if isinstance(error, (httpx2.RemoteProtocolError, httpx2.ReadError)):
        return f"the connection to {hub} broke ({text}); fetch it again"
    if isinstance(error, (httpx2.HTTPError, httpx2.InvalidURL)):
        return f"{hub} cannot be reached ({text}); check the network, proxy and HF_ENDPOINT"
    return f"{text} (local cache: {constants.HF_HUB_CACHE})"
