"""What the real services have and the sandbox does not: asked for it, a service refuses in its own envelope.

docs/sandbox.md lists all of it; a test compares the two.
"""

from enum import Enum

STATUS = 501
"""Not Implemented."""


class Absent(Enum):
    """A feature; the name begins with that of its service, the value is how it is called."""

    GATEWAY_FUNCTIONS = "Edge Functions"
    GATEWAY_GRAPHQL = "GraphQL"
    AUTH_OAUTH = "signing in with OAuth"
    AUTH_OTP = "signing in with one-time passwords and magic links"
    AUTH_PHONE = "phone numbers"
    AUTH_MFA = "MFA and passkeys"
    AUTH_SSO = "SSO"
    AUTH_IDENTITIES = "linking and unlinking identities"
    AUTH_REAUTHENTICATION = "reauthentication"
    AUTH_EMAIL_CHANGE = "changing an address that has to be confirmed"
    AUTH_INVITATIONS = "invitations and generated links"
    AUTH_ADMIN = "changing users, factors and providers as the admin"
    REST_EMBEDDING = "embedding"
    REST_AGGREGATES = "aggregates"
    REST_FULL_TEXT = "full-text search"
    REST_CSV = "CSV"
    REST_FORMS = "forms as bodies"
    REST_PUT = "PUT"
    REST_OPENAPI = "the OpenAPI description"
    REST_HEADERS_ONLY = "return=headers-only"
    REST_TIMEZONE = "the preference timezone"
    STORAGE_TRANSFORMATIONS = "image transformations"
    STORAGE_S3 = "the S3 protocol"
    STORAGE_CDN = "purging a CDN"
    STORAGE_ANALYTICS = "analytics and vector buckets"
    REALTIME_BROADCAST = "broadcast"
    REALTIME_PRESENCE = "presence"
    HUB_XET = "Xet"
    HUB_LFS_DOWNLOADS = "downloads over the LFS protocol"
    HUB_BRANCHES = "branches and tags"
    HUB_PULL_REQUESTS = "pull requests and discussions"
    HUB_KINDS = "other repos than models and datasets"
    HUB_GATED = "making a repo gated, and asking for access to one"
    HUB_SETTINGS = "settings of a repo other than its visibility"
    HUB_MOVING = "moving and duplicating repos"
    HUB_SEARCH = "search beyond author, name, tag and pipeline tag"
    HUB_EXPAND = "properties of a model's contents and use"
    HUB_SECURITY = "security scans"
    HUB_SCHEDULED_JOBS = "scheduled Jobs"
    HUB_JOB_FEATURES = "Jobs with ports, SSH, networks, Spaces, buckets, parts of a repo or several attempts"
    HUB_JOB_ROUTES = "metrics of Jobs, and repeating or changing one"
    HUB_SOCIAL = "likes, collections and papers"
    HUB_ACCOUNTS = "profiles, webhooks and other settings of an account"

    @property
    def service(self) -> str:
        """The service: gateway, auth, rest, storage, realtime or hub."""
        return self.name.partition("_")[0].lower()

    @property
    def sentence(self) -> str:
        """What the service says."""
        return not_imitated(self.value)


def not_imitated(what: str) -> str:
    """Return the sentence about anything else that a service lacks."""
    return f"The sandbox does not imitate {what}."
