"""Check an evidence pack with no network and none of the product."""
