"""What a request carries: pictures and options, out of multipart, JSON or a raw body, never more bytes than allowed."""

import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vlm_serving.config import ServingConfig
from vlm_serving.errors import (
    BodyTooLargeError,
    MalformedRequestError,
    MediaTypeError,
    PictureError,
    PictureTooLargeError,
    RequestError,
)
from vlm_serving.schemas import AskedBody, CaptionRequestBody
from vlm_serving.service import Upload, named

M = TypeVar("M", CaptionRequestBody, AskedBody)
ACCEPTED = "multipart/form-data with fields 'files', application/json, or a picture as the body (image/*)"


async def read_request(request: Request, config: ServingConfig) -> tuple[list[Upload], AskedBody]:
    """Read pictures, options and the model's name of a POST. Options come from the query, and in JSON from `options`,
    which wins; those that were not asked for are None. So does `model`.

    Raises MediaTypeError, BodyTooLargeError, MalformedRequestError, RequestError, PictureError.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    options = _query_options(request.query_params)
    if kind == "multipart/form-data":
        uploads = await _from_multipart(request, config)
    elif kind == "application/json":
        body = _parse_json(await _body(request, config.max_body_bytes))
        uploads = _from_json(body, config)
        options = options.model_copy(update=body.options.model_dump(exclude_none=True))
        options = options.model_copy(update={"model": body.model or options.model})
    elif kind.startswith("image/") or kind == "application/octet-stream":
        uploads = [Upload("body", await _body(request, min(config.max_body_bytes, config.max_picture_bytes), True))]
    else:
        raise MediaTypeError(f"The content type is {kind or 'missing'!r}. Send {ACCEPTED}.")
    return uploads, options


def _query_options(query: Mapping[str, str]) -> AskedBody:
    unknown = sorted(set(query) - set(AskedBody.model_fields))
    if unknown:
        raise RequestError(f"Unknown query parameters {unknown}; known are {sorted(AskedBody.model_fields)}.")
    return _validated(AskedBody, dict(query), "the query")


async def _stream(request: Request, max_bytes: int, picture: bool = False) -> AsyncGenerator[bytes, None]:
    """The body's pieces; raises as soon as it is known to exceed the limit, before or while reading."""
    declared = request.headers.get("content-length", "")
    seen = int(declared) if declared.isdigit() else 0
    too_large = PictureTooLargeError if picture else BodyTooLargeError
    what = "picture" if picture else "request body"
    if seen > max_bytes:
        raise too_large(f"The {what} has {seen:,} bytes; the limit is {max_bytes:,}. Send less at once.")
    seen = 0
    async for piece in request.stream():
        seen += len(piece)
        if seen > max_bytes:
            raise too_large(f"The {what} has more than {max_bytes:,} bytes, which is the limit. Send less at once.")
        yield piece


async def _body(request: Request, max_bytes: int, picture: bool = False) -> bytes:
    return b"".join([piece async for piece in _pieces(_stream(request, max_bytes, picture))])


async def _pieces(stream: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async for piece in stream:
        yield piece


async def _from_multipart(request: Request, config: ServingConfig) -> list[Upload]:
    stream = _stream(request, config.max_body_bytes)
    parser = MultiPartParser(request.headers, stream, max_files=config.max_pictures, max_fields=8)
    parser.spool_max_size = config.max_body_bytes  # the body is bounded already: keep it off the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise RequestError(f"The limit is {config.max_pictures} pictures in one request. Split it.") from error
        raise MalformedRequestError(f"The multipart body cannot be parsed: {error.message}") from error
    try:
        parts = form.multi_items()
        strangers = sorted({name for name, value in parts if name != "files" or not isinstance(value, UploadFile)})
        if strangers:
            raise RequestError(f"Unexpected form fields {strangers}; send pictures as files named 'files'.")
        files = [value for _, value in parts if isinstance(value, UploadFile)]
        if not files:
            raise RequestError("The form holds no pictures. Send at least one file in the field 'files'.")
        return [Upload(_label("files", i, file.filename), await file.read()) for i, file in enumerate(files)]
    finally:
        await form.close()


def _label(field: str, index: int, filename: str | None) -> str:
    """How errors call a picture; the caller's file name is cut and stripped of control characters."""
    name = "".join(char for char in filename or "" if char.isprintable())[:80]
    return f"{field}[{index}] ({name})" if name else f"{field}[{index}]"


def _parse_json(body: bytes) -> CaptionRequestBody:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequestError(f"The body is not JSON: {error}. Send {{'images': [{{'base64': …}}]}}.") from error
    return _validated(CaptionRequestBody, value, "the body")


def _validated(model: type[M], value: Any, where: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc'])) or where}: {one['msg']}" for one in error.errors()[:5]]
        raise RequestError(f"In {where}: {'; '.join(faults)}. See /docs for the form.") from error


def _from_json(body: CaptionRequestBody, config: ServingConfig) -> list[Upload]:
    if len(body.images) > config.max_pictures:
        raise RequestError(
            f"The request has {len(body.images)} pictures; the limit is {config.max_pictures}. Split it."
        )
    return [_from_base64(image.base64, index) for index, image in enumerate(body.images)]


def _from_base64(text: str, index: int) -> Upload:
    name = f"images[{index}]"
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Upload(name, base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise named(PictureError(f"base64 cannot be decoded ({error}). Send it again."), index, name) from error
