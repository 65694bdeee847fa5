"""What a request carries: pictures and options, out of multipart, JSON or a raw body, never more bytes than allowed."""

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vlm_serving.config import ServingConfig
from vlm_serving.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    MalformedRequestError,
    MediaTypeError,
    PictureError,
    PictureTooLargeError,
    RequestError,
)
from vlm_serving.fetching import fetch
from vlm_serving.schemas import AskedBody, CaptionRequestBody, PictureBody
from vlm_serving.service import Upload, named

M = TypeVar("M", bound=BaseModel)
BODY_TIMEOUT_S = 60.0
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
        body = await _json(request, CaptionRequestBody, config.max_body_bytes)
        uploads = await _from_json(body, config)
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
    seen, pieces, until_s = 0, aiter(request.stream()), time.monotonic() + BODY_TIMEOUT_S
    while (piece := await _next_piece(pieces, until_s)) is not None:
        seen += len(piece)
        if seen > max_bytes:
            raise too_large(f"The {what} has more than {max_bytes:,} bytes, which is the limit. Send less at once.")
        yield piece


async def _next_piece(pieces: AsyncIterator[bytes], until_s: float) -> bytes | None:
    """None at the end. Raises BodyTooSlowError: a body that drips would hold its place for as long as it likes."""
    try:
        async with asyncio.timeout(until_s - time.monotonic()):
            return await anext(pieces, None)
    except TimeoutError:
        raise BodyTooSlowError(f"The request body took longer than {BODY_TIMEOUT_S:g} s. Send less at once.") from None


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


async def read_json(request: Request, model: type[M], max_bytes: int) -> M:
    """The body of a POST that takes JSON only, as a `model`.

    Raises MediaTypeError, BodyTooLargeError, MalformedRequestError, RequestError.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise MediaTypeError(f"The content type is {kind or 'missing'!r}. Send application/json.")
    return await _json(request, model, max_bytes)


async def _json(request: Request, model: type[M], max_bytes: int) -> M:
    body = await _body(request, max_bytes)
    try:
        value = from_json(body, allow_inf_nan=False)  # unlike json.loads it refuses half a surrogate pair
    except ValueError as error:
        raise MalformedRequestError(f"The body is not JSON: {error}. See /docs for the form.") from error
    return _validated(model, value, "the body", strict=True)


def _validated(model: type[M], value: Any, where: str, *, strict: bool = False) -> M:
    """`strict`: numbers are no strings and strings no numbers; a query has nothing but strings."""
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        faults = [fault(one, where) for one in error.errors(include_url=False)[:5]]
        raise RequestError(f"In {where}: {'; '.join(faults)}. See /docs for the form.") from error


def fault(error: Mapping[str, Any], where: str) -> str:
    """What is wrong at which place, with the value that stands there if it is short."""
    value = error["input"]
    seen = f", not {value!r}" if isinstance(value, int | float | str) and len(repr(value)) <= 40 else ""
    return f"{'.'.join(map(str, error['loc'])) or where}: {error['msg']}{seen}"


async def _from_json(body: CaptionRequestBody, config: ServingConfig) -> list[Upload]:
    if len(body.images) > config.max_pictures:
        raise RequestError(
            f"The request has {len(body.images)} pictures; the limit is {config.max_pictures}. Split it."
        )
    return list(await asyncio.gather(*(_from_image(image, i, config) for i, image in enumerate(body.images))))


async def _from_image(image: PictureBody, index: int, config: ServingConfig) -> Upload:
    name = f"images[{index}]"
    if "url" in image.model_fields_set:
        return await picture_at(image.url, index, name, config)
    if image.base64.startswith("data:"):
        return await picture_at(image.base64, index, name, config)
    return _from_base64(image.base64, index, name)


async def picture_at(url: str, index: int, name: str, config: ServingConfig) -> Upload:
    """The picture of a data URL, or of a place that pictures may be fetched from. `index` and `name` tell which of the
    request's it is, in errors.

    Raises PictureError, UrlRefusedError, UrlFailedError.
    """
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "data":
        return Upload(name, await _fetched(url, index, name, config))
    head, comma, content = rest.partition(",")
    if not comma:
        raise named(PictureError("the data URL has no comma before its content. Send it again."), index, name)
    data = unquote_to_bytes(content)  # RFC 2397: either kind may be percent-encoded
    if head.strip().lower().endswith(";base64"):
        return _from_base64(data.decode("latin-1"), index, name)
    return Upload(name, data)


async def _fetched(url: str, index: int, name: str, config: ServingConfig) -> bytes:
    try:
        return await fetch(url, config.fetch_rules)
    except PictureError as error:
        raise named(error, index, name) from error
    except RequestError as error:
        raise type(error)(f"{name}: {error}") from error


def _from_base64(text: str, index: int, name: str) -> Upload:
    try:
        return Upload(name, base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise named(PictureError(f"base64 cannot be decoded ({error}). Send it again."), index, name) from error
