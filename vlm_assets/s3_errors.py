"""What an S3 client's exception means, in one sentence with a way out; never a secret."""

from urllib.parse import urlsplit, urlunsplit

BAD_CREDENTIALS = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "AuthFailure"}
DENIED = {"AccessDenied", "AllAccessDisabled", "Forbidden", "403"}


def s3_error_text(error: Exception, action: str, target: str, endpoint: str, setting: str) -> str:
    """One sentence: what happened to `target` (s3://bucket/key) at `endpoint`, and what to do.

    `action` is read, write or list; `setting` names the setting that led to the bucket.
    """
    from botocore.exceptions import ConnectionError, HTTPClientError, NoCredentialsError, PartialCredentialsError

    cause = _cause(error)
    code, bucket, where = _code(cause), target.removeprefix("s3://").split("/")[0], without_credentials(endpoint)
    if isinstance(cause, (NoCredentialsError, PartialCredentialsError)):
        return f"There are no credentials for {target}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    if isinstance(cause, (ConnectionError, HTTPClientError)):
        return f"Cannot reach S3 at {where} to {action} {target}. Check AWS_ENDPOINT_URL and the network."
    if code == "NoSuchBucket":
        return f"There is no bucket {bucket!r} at {where}. Create it, or correct {setting} or AWS_ENDPOINT_URL."
    if code in BAD_CREDENTIALS:
        return (
            f"S3 at {where} does not accept the credentials to {action} {target} ({code}). "
            "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."
        )
    if code in DENIED:
        return (
            f"S3 at {where} denies these credentials to {action} {target} ({code}). "
            f"Give them that right, and check that there is a bucket {bucket!r}."
        )
    if code == "InvalidObjectState":
        return f"{target} is archived ({code}). Restore it from the archive, or take it out of the set."
    return f"Cannot {action} {target} at {where}: {cause}. Check {setting} and the AWS_* variables."


def without_credentials(url: str) -> str:
    """The URL without `user:password@`."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _cause(error: Exception) -> Exception:
    """boto3's transfers put the client's error into a text of their own; the error itself says more."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    inner = error.__cause__ or error.__context__
    return inner if isinstance(error, Boto3Error) and isinstance(inner, (BotoCoreError, ClientError)) else error


def _code(error: Exception) -> str:
    return str((getattr(error, "response", None) or {}).get("Error", {}).get("Code", ""))
