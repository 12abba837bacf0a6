"""A SIMULATOR of what a payables desk works with: sanctions screening, a vendor file, a bank. No list is a real one.

It answers calls in this process and keeps its own books, by which the incident demos are judged.
"""

from countermark.twins.vendors.desk import Changed, Paid, Screened, VendorDesk, list_digest

__all__ = ["Changed", "Paid", "Screened", "VendorDesk", "list_digest"]
