"""Floor 4: connectors to providers. Each offers tool drafts and turns a request into an outcome."""

from countermark.connectors.addresses import networks_of
from countermark.connectors.approve import ApproveConnector
from countermark.connectors.evm import EvmConnector
from countermark.connectors.http import HttpConnector
from countermark.connectors.http_send import LostError, NotSentError, Sender, origin_of
from countermark.connectors.mcp import McpConnector, UpstreamError, command_connector, draft, origin_connector
from countermark.connectors.noop import NoopConnector
from countermark.connectors.recorded import Executed, RecordedConnector
from countermark.connectors.stripe import IssuingConnector, ProviderError, StripeConnector

__all__ = [
    "ApproveConnector",
    "EvmConnector",
    "Executed",
    "HttpConnector",
    "IssuingConnector",
    "LostError",
    "McpConnector",
    "NoopConnector",
    "NotSentError",
    "ProviderError",
    "RecordedConnector",
    "Sender",
    "StripeConnector",
    "UpstreamError",
    "command_connector",
    "draft",
    "networks_of",
    "origin_connector",
    "origin_of",
]
