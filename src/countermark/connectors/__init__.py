"""Floor 4: connectors to providers. Each offers tool drafts and turns a request into an outcome."""

from countermark.connectors.noop import NoopConnector
from countermark.connectors.recorded import Executed, RecordedConnector
from countermark.connectors.stripe import ProviderError, StripeConnector

__all__ = ["Executed", "NoopConnector", "ProviderError", "RecordedConnector", "StripeConnector"]
