"""Every exception that vlm_serving raises on purpose, with the HTTP status it becomes. The tree:

ServingError              500 internal-error
├── PictureError          400 bad-picture           not decodable, truncated, empty
│   ├── PictureTooLargeError     413 picture-too-large      too many bytes or pixels
│   └── UnsupportedPictureError  415 unsupported-picture    not one of the formats allowed
├── RequestError          422 bad-request           the request's shape or options are wrong
├── OverloadedError       503 overloaded            the queue is full; try again later
├── NotReadyError         503 not-ready             no model is loaded yet
└── BundleError           500 bad-bundle            a model bundle is incomplete, altered or does not behave as recorded
"""

from typing import ClassVar


class ServingError(Exception):
    """Base of all errors raised on purpose by this package."""

    http_status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"


class PictureError(ServingError):
    """The bytes are not a picture that can be captioned."""

    http_status = 400
    slug = "bad-picture"


class PictureTooLargeError(PictureError):
    """The picture has more bytes or pixels than allowed."""

    http_status = 413
    slug = "picture-too-large"


class UnsupportedPictureError(PictureError):
    """The bytes are not in an allowed picture format."""

    http_status = 415
    slug = "unsupported-picture"


class RequestError(ServingError):
    """The request's shape or options are wrong."""

    http_status = 422
    slug = "bad-request"


class OverloadedError(ServingError):
    """Too much is waiting already."""

    http_status = 503
    slug = "overloaded"


class NotReadyError(ServingError):
    """No model is loaded yet."""

    http_status = 503
    slug = "not-ready"


class BundleError(ServingError):
    """A model bundle is incomplete, altered, or does not behave as recorded."""

    slug = "bad-bundle"
