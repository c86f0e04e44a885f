"""An S3 of a test's own: moto's server, with one bucket."""

import logging
import urllib.request

from moto.server import ThreadedMotoServer

BUCKET = "pictures"


class S3Server:
    """It is reached by `variables`, as any S3 is."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = int(self._server.get_host_and_port()[1])
        self.variables = self.variables_through(self.port)
        self.make_bucket()

    def variables_through(self, port: int) -> dict[str, str]:
        """How it is reached by way of another port."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self) -> None:
        self._ask("PUT", f"/{BUCKET}")

    def empty(self) -> None:
        self._ask("POST", "/moto-api/reset")
        self.make_bucket()

    def remove_bucket(self) -> None:
        self._ask("POST", "/moto-api/reset")

    def stop(self) -> None:
        self._server.stop()

    def _ask(self, method: str, path: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.status == 200
