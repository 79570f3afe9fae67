"""s3:// targets: one object a file, sent in parts whose SHA-256 the store checks.

boto3 and not Arrow's client, which reads the records: that one sends neither checksums nor metadata, so that only
reading everything back could tell whether an object is whole.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from falcon_trainer.artifacts import FileEntry, Manifest
from falcon_trainer.layout import MANIFEST
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.publish.parcel import Parcel, Progress, counted, left_over
from falcon_trainer.uris import bucket_folder

PART = 64 << 20
"""Bytes; of at most 10,000 parts, so 625 GB for one object."""
TRIES = 8
"""Of one request; the pauses between them grow up to 20 s."""
DIGEST = "sha256"
"""Metadata of each object."""
REPLACED = "manifest.json.replaced"
"""Beside the files while one result takes the place of another: what the earlier one held."""
FORBIDDEN = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})


class BucketFolder:
    """A folder of a bucket. `secrets` are the files of the mounted Secret, which boto3's variables are named after;
    without them boto3 finds the pod's own identity.
    """

    def __init__(self, uri: str, secrets: Mapping[str, str]) -> None:
        self._uri = uri
        self._bucket, self._folder = bucket_folder(uri)
        self._secrets = secrets

    def receive(self, parcel: Parcel, progress: Progress) -> None:
        """As Target.receive."""
        with self._explained():
            client = self._client()
            earlier = self._withdrawn(client, parcel)
            for name, entry in counted(parcel, progress):
                key = f"{self._folder}/{name}"
                if not self._holds(client, key, entry):
                    self._send(client, parcel, name, key)
                    self._check(client, key, entry)
            if earlier:
                self._clean(client, [*left_over(earlier, parcel), REPLACED])

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import InvalidRegionError

        given = self._secrets.get
        try:
            return boto3.client(
                "s3",
                aws_access_key_id=given("AWS_ACCESS_KEY_ID"),
                aws_secret_access_key=given("AWS_SECRET_ACCESS_KEY"),
                aws_session_token=given("AWS_SESSION_TOKEN"),
                region_name=given("AWS_REGION"),
                endpoint_url=given("AWS_ENDPOINT_URL"),
                config=Config(retries={"mode": "standard", "total_max_attempts": TRIES}),
            )
        except InvalidRegionError as error:
            raise self._misset("AWS_REGION is no region, such as eu-central-1", error) from error
        except ValueError as error:
            raise self._misset("AWS_ENDPOINT_URL is no address, such as https://s3.example.com", error) from error

    def _withdrawn(self, client: Any, parcel: Parcel) -> Manifest | None:
        """What an earlier result, if any, left in the folder. Its manifest is taken away: nobody shall find one while
        old and new files are mixed. A copy beside them tells the next pod what to remove in the end.
        """
        standing, replaced = self._read(client, MANIFEST), self._read(client, REPLACED)
        if standing is None or standing == parcel.manifest:
            return replaced
        files = {**(replaced.files if replaced else {}), **standing.files}
        earlier = standing.model_copy(update={"files": files})
        self._put(client, REPLACED, earlier.encode())
        self._clean(client, [MANIFEST])
        return earlier

    def _read(self, client: Any, name: str) -> Manifest | None:
        """A manifest in the folder; None where there is none of this product."""
        from botocore.exceptions import ClientError

        try:
            found = client.get_object(Bucket=self._bucket, Key=f"{self._folder}/{name}")
            return Manifest.model_validate_json(found["Body"].read())
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise
        except ValidationError:
            return None

    def _put(self, client: Any, name: str, content: bytes) -> None:
        key = f"{self._folder}/{name}"
        client.put_object(Bucket=self._bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256")

    def _clean(self, client: Any, names: Iterable[str]) -> None:
        """One by one, in this order: the list of what is to go is removed last."""
        for name in names:
            client.delete_object(Bucket=self._bucket, Key=f"{self._folder}/{name}")

    def _holds(self, client: Any, key: str, entry: FileEntry) -> bool:
        """Whether the object is there, whole: its parts were checked when they came, its metadata came with it."""
        from botocore.exceptions import ClientError

        try:
            found = client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _status(error) == 404:
                return False
            raise
        # Names of metadata are headers: some stores spell them Sha256.
        metadata = {name.lower(): value for name, value in found["Metadata"].items()}
        return bool(found["ContentLength"] == entry.bytes and metadata.get(DIGEST) == entry.sha256)

    def _send(self, client: Any, parcel: Parcel, name: str, key: str) -> None:
        from boto3.s3.transfer import TransferConfig

        client.upload_file(
            str(parcel.checked(name)),
            self._bucket,
            key,
            ExtraArgs={"ChecksumAlgorithm": "SHA256", "Metadata": {DIGEST: parcel.files[name].sha256}},
            Config=TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4),
        )

    def _check(self, client: Any, key: str, entry: FileEntry) -> None:
        if not self._holds(client, key, entry):
            text = f"s3://{self._bucket}/{key} is not what was sent: does somebody else write there?"
            raise StageError(ExitCode.TRY_AGAIN, "CopyDamaged", text)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns boto3's errors into StageErrors. No OSErrors: boto3 wraps those of its connections, so that one is of
        reading the workspace.
        """
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except NoCredentialsError as error:
            raise self._forbidden("the pod has no credentials") from error
        except PartialCredentialsError as error:
            raise self._forbidden(f"half of the credentials are missing ({error})") from error
        except (ClientError, S3UploadFailedError) as error:
            raise self._meaning(error) from error
        except BotoCoreError as error:
            raise self._unavailable(str(error)) from error

    def _meaning(self, error: Exception) -> StageError:
        refused = error if hasattr(error, "response") else error.__context__
        response: Mapping[str, Any] = getattr(refused, "response", None) or {}
        code = str(response.get("Error", {}).get("Code", ""))
        status = _status(refused)
        said = f"the store answers {code or error} (HTTP {status})"
        if code in FORBIDDEN or status in (401, 403):
            return self._forbidden(said)
        if code == "NoSuchBucket" or status in (301, 404):
            text = f"{self._uri}: {said}: check the bucket's name, AWS_REGION and AWS_ENDPOINT_URL."
            return StageError(ExitCode.CANNOT_WRITE, "TargetNotFound", text)
        return self._unavailable(said)

    def _forbidden(self, said: str) -> StageError:
        return StageError(
            ExitCode.NO_PERMISSION,
            "TargetForbidden",
            f"{self._uri}: {said}. Give publish[].secretName a Secret whose AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY may read, write and delete there, or podTemplate.publish.serviceAccountName an "
            "identity.",
        )

    def _misset(self, said: str, error: Exception) -> StageError:
        text = f"{self._uri}: {said} ({error}). It is a key of publish[].secretName's Secret."
        return StageError(ExitCode.CONFIGURATION, "InvalidConfiguration", text)

    def _unavailable(self, said: str) -> StageError:
        text = f"{self._uri} cannot be written now: {said}. What was copied is kept, and the next try goes on from it."
        return StageError(ExitCode.UNAVAILABLE, "TargetUnavailable", text)


def _status(error: object) -> int | None:
    found: Callable[[str, Any], Any] = getattr(error, "response", {}).get
    status: int | None = found("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
