"""LitServe and the stock model: its four verbs, batching on (https://lightning.ai/docs/litserve/features/batching)."""

import litserve  # pyright: ignore[reportMissingImports]
from fastapi import UploadFile
from PIL import Image

from tests.benchmarks.rivals.settings import RivalSettings
from tests.benchmarks.rivals.stock import StockCaptioner, decoded

settings = RivalSettings.from_environment()


class CaptionAPI(litserve.LitAPI):  # pyright: ignore[reportUntypedBaseClass]
    def setup(self, device: str) -> None:
        self.captioner = StockCaptioner(settings.bundle, settings.threads, settings.dtype, settings.tokens)

    def decode_request(self, request: UploadFile) -> Image.Image:
        return decoded(request.file.read())

    def predict(self, pictures: list[Image.Image]) -> list[str]:
        return self.captioner(pictures)

    def encode_response(self, output: str) -> dict[str, str]:
        return {"caption": output}


if __name__ == "__main__":
    api = CaptionAPI(max_batch_size=settings.max_batch_size, batch_timeout=settings.batch_wait_s, api_path="/caption")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=settings.port, generate_client_file=False, log_level="warning")
