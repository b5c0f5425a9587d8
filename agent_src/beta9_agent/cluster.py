"""How many workers and containers the local k3s runs, with the service account's own token: it may list pods, which is
enough."""

from __future__ import annotations

from typing import Callable

import httpx

from . import http

SECONDS = 2.0
MAX_BODY_BYTES = 4 * 1024 * 1024
# the gateway runs its workers as Jobs in "default"; k3s itself gives their pods this label
PODS = "/api/v1/namespaces/default/pods?labelSelector=job-name&fieldSelector=status.phase%3DRunning&limit=500"


class Cluster:
    """Counts pods of Jobs and their running containers. trouble says why it can't, or is None: then there is no k3s to
    ask."""

    def __init__(self, url: str, token: Callable[[], str | None], ca_path: str | None) -> None:
        self.trouble: str | None = None
        self._token = token
        self._url, self._ca_path = url, ca_path
        self._http: httpx.Client | None = None

    def counts(self) -> dict[str, int]:
        """Return {"worker_count", "container_count"}, or {} when they can't be known."""
        try:
            token = self._token()
            if not token:
                self.trouble = None
                return {}
            if not self._ca_path:
                self.trouble = "there is a k3s token, but no CA to know k3s by"
                return {}
            if self._http is None:
                self._http = http.client(self._url, self._ca_path, SECONDS, max_body_bytes=MAX_BODY_BYTES)
            response = self._http.get(PODS, headers={"Authorization": "Bearer " + token})
            if response.status_code != 200:
                self.trouble = f"k3s answers {response.status_code} to a listing of pods in default"
                return {}
            pods = response.json()["items"]
            parts = [part for pod in pods for part in pod["status"].get("containerStatuses", [])]
            running = [part for part in parts if "running" in part.get("state", {})]
            self.trouble = None
            return {"worker_count": len(pods), "container_count": len(running)}
        except http.Unreachable as error:
            self.trouble = f"k3s does not answer at {self._url}: {error.name}"
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.trouble = f"k3s could not be asked: {type(error).__name__}: {str(error)[:100]}"
        return {}

    def close(self) -> None:
        """Close the connection."""
        if self._http:
            self._http.close()
