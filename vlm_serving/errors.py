"""Every exception that vlm_serving raises on purpose, with the HTTP status it becomes. The tree:

ServingError                     500 internal-error
├── PictureError                 400 bad-picture             not decodable, truncated, empty
│   ├── PictureTooLargeError     413 picture-too-large       too many bytes or pixels
│   └── UnsupportedPictureError  415 unsupported-picture     not one of the formats allowed
├── RequestError                 422 bad-request             the request's shape or options are wrong
│   ├── UrlRefusedError          422 url-refused             a picture's URL is none that may be fetched
│   ├── UrlFailedError           422 url-failed              a picture's URL could not be fetched
│   ├── MalformedRequestError    400 malformed-request       the body is not what its content type says
│   ├── BodyTooLargeError        413 body-too-large          the body has more bytes than allowed
│   ├── BodyTooSlowError         408 body-too-slow           the body did not arrive in time
│   └── MediaTypeError           415 unsupported-media-type  the content type is none that is read
├── UnauthorizedError            401 unauthorized            no API key, or none that is known
├── RateLimitedError             429 rate-limited            the caller has sent as many requests as it may
├── UnknownModelError            404 unknown-model           no model has this name
├── DeadlineExceededError        504 deadline-exceeded       it took longer than the request or the settings allow
├── ClientGoneError              499 client-gone             who asked has closed the connection; for the log only
├── PictureFailedError           500 captioning-failed       the model raised on a picture that decoded well
├── FeedbackOffError             501 feedback-off            corrections are not kept here
├── FeedbackFullError            507 feedback-full           the log of corrections has reached its limit
├── FeedbackNotKeptError         503 feedback-not-kept       the disk did not take a correction
├── MetricsOffError              501 metrics-off             this process keeps no numbers for Prometheus
├── OverloadedError              503 overloaded              the queue is full; try again later
├── NotReadyError                503 not-ready               no model is loaded yet
├── BundleError                  500 bad-bundle              a bundle is incomplete, altered or behaves otherwise
│   └── NotRegisteredError       500 not-registered          MLflow answers, and has no such model
├── DeployFailedError            a deployment was not reached or refused; what Serve or the replica said
├── SettingsError                settings of the server that cannot be used
├── PortInUseError               a port that was asked for is taken
├── PathsError                   a folder or pattern on the command line has no pictures
├── OutputError                  a captions.jsonl that cannot be gone on with
└── CaptionRequestError          the client's: the server refused or failed, or was not reached
"""

from typing import Any, ClassVar


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

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownModelError(ServingError):
    """No model has the name that was asked for."""

    http_status = 404
    slug = "unknown-model"


class UnauthorizedError(ServingError):
    """The request carries no API key, or none that is known."""

    http_status = 401
    slug = "unauthorized"


class RateLimitedError(ServingError):
    """The caller has sent as many requests as it may."""

    http_status = 429
    slug = "rate-limited"


class SettingsError(ServingError):
    """Settings of the server that cannot be used; all faults in one text."""

    slug = "bad-settings"


class DeadlineExceededError(ServingError):
    """The answer was not there in time."""

    http_status = 504
    slug = "deadline-exceeded"


class ClientGoneError(ServingError):
    """Who asked has closed the connection. Nobody reads the answer; the status is for log and metrics."""

    http_status = 499
    slug = "client-gone"


class NotReadyError(ServingError):
    """No model is loaded yet."""

    http_status = 503
    slug = "not-ready"


class BundleError(ServingError):
    """A model bundle is incomplete, altered, or does not behave as recorded."""

    slug = "bad-bundle"


class CaptionRequestError(ServingError):
    """The server refused or failed. `status` is the HTTP status (0: not reached), `problem` its problem document."""

    def __init__(self, message: str, status: int = 0, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem or {}


class NotRegisteredError(BundleError):
    """MLflow answers and has no model of this name, alias or number."""

    slug = "not-registered"


class DeployFailedError(ServingError):
    """Ray Serve could not be reached, or did not take the bundle. The text carries what Serve or the replica said."""

    slug = "deploy-failed"


class UrlRefusedError(RequestError):
    """A picture's URL is none that may be fetched."""

    slug = "url-refused"


class UrlFailedError(RequestError):
    """A picture's URL may be fetched and could not be."""

    slug = "url-failed"


class MalformedRequestError(RequestError):
    """The body is not what its content type says."""

    http_status = 400
    slug = "malformed-request"


class BodyTooLargeError(RequestError):
    """The request body has more bytes than allowed."""

    http_status = 413
    slug = "body-too-large"


class BodyTooSlowError(RequestError):
    """The request body did not arrive in time."""

    http_status = 408
    slug = "body-too-slow"


class MediaTypeError(RequestError):
    """The content type is none that the endpoint reads."""

    http_status = 415
    slug = "unsupported-media-type"


class PortInUseError(ServingError):
    """A port that was asked for is taken."""

    slug = "port-in-use"


class PictureFailedError(ServingError):
    """The model raised on one picture that decoded well."""

    slug = "captioning-failed"


class FeedbackOffError(ServingError):
    """This server keeps no corrections."""

    http_status = 501
    slug = "feedback-off"


class FeedbackFullError(ServingError):
    """The log of corrections has as many bytes as it may have."""

    http_status = 507
    slug = "feedback-full"


class FeedbackNotKeptError(ServingError):
    """A correction could not be written."""

    http_status = 503
    slug = "feedback-not-kept"


class MetricsOffError(ServingError):
    """This process keeps no numbers for Prometheus."""

    http_status = 501
    slug = "metrics-off"


class PathsError(ServingError):
    """Folders or patterns on the command line in which there is no picture."""

    slug = "no-pictures"


class OutputError(ServingError):
    """A file of captions that this run cannot go on with."""

    slug = "output"
