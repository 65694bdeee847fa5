"""FastAPI and the stock model: an upload, a thread for the model, one picture at a time; FastAPI has no batching."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File

from tests.benchmarks.rivals.settings import RivalSettings
from tests.benchmarks.rivals.stock import StockCaptioner, decoded

settings = RivalSettings.from_environment()
app = FastAPI()
captioner = StockCaptioner(settings.bundle, settings.threads, settings.dtype, settings.tokens)
# one thread: FastAPI's own pool would caption forty pictures at once on as many threads each
model_thread = ThreadPoolExecutor(1)


@app.post("/caption")
async def caption(file: Annotated[bytes, File()]) -> dict[str, str]:
    return {"caption": await asyncio.get_running_loop().run_in_executor(model_thread, one_caption, file)}


def one_caption(data: bytes) -> str:
    return captioner([decoded(data)])[0]


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=settings.port, log_level="warning")
